"""A comparison of methods: the flow that finishes its runs, and what is concluded from them."""
