"""Real servers for the tests: brokers, databases, foreign OPC UA and Modbus servers, and a proxy that breaks links.

Every server binds to 127.0.0.1 on a free port and is ended by its process id. The pytest fixtures are in `fixtures`.
"""
