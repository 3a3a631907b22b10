"""Migrations of a study's database, applied when the server starts."""
