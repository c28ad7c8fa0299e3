"""The commands, a file for each family of them; `enrich.cli` puts them together."""
