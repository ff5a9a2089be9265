"""How a question of health is told from a client's picture.

Whoever looks every second whether the server answers sends it the same golden picture. These are counted on
their own: else that picture's label would be the most frequent of a quiet night.
"""

HEADER = "x-health-check"
