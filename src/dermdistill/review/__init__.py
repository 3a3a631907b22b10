"""The reading room: studies in which experts judge heat maps blind, and what their answers say."""
