"""The page at `/`: what a person in the workshop sees of the gateway, in a browser, without the internet.

The server renders the frame with all texts in one language (`frame.render`); small ES modules under `static/` fill it from the
public API, as any other client would. Nothing comes from another host, and no script stands in the HTML.
"""
