"""The bundled workshop: simulated devices that behave, misbehave and know the truth.

Each device is a real server on a real port, driven by a seeded model of its process, and keeps a log of everything it
handed out (:mod:`simulators.truth`), so that a test can compare what arrived with what was served.
"""
