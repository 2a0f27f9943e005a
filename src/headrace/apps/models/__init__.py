"""Models of apps: kept with where they come from, trained, scored, compared and watched (docs/models.md)."""
