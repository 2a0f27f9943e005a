"""Views of apps on the site: an app's names laid on tags, drawn as markup and charts. No code of an app."""
