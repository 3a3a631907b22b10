"""Named recipes: YAML files beside this module, read into ``dermdistill.config.Recipe``."""
