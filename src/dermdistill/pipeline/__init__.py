"""A whole run: the stages in their order, each reading files and writing one self-describing result."""
