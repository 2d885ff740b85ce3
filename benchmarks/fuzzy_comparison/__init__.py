"""Does fuzzy help? The comparison of networks and losses behind the documentation's answer.

Run from the repository's root, as `python -m benchmarks.fuzzy_comparison --data ham10000 --output comparison`.
"""
