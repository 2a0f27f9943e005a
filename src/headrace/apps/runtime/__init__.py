"""The runtime of industrial apps: what feeds an app's Python, and what becomes of what it gives."""
