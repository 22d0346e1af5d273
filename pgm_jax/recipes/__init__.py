"""Recipes: one file a system, composed of the library's parts, in folders by the review's sections."""
