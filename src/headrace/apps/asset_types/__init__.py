"""Asset types as packages with versions: what kinds of assets are called, measure and are rated by, and how an
app's needed types are found on a site."""
