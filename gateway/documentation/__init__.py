"""The documentation as HTML: the same pages whether `serve` answers with them at `/docs` or a browser opens them from a folder.

The Markdown of `docs/`, of the deployment and of the changes ships in the wheel; in a checkout it is read where it lies.
"""
