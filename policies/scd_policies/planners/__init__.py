"""Policies that try actions in a world before they act."""
