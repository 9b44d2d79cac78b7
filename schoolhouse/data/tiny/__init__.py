"""The tiny school: a small made-up world, generated from seeds, in which a model of two million parameters can learn.

Every generator is deterministic, and every item belongs to one split by the hash of what it asks
([`split_of`]), so that train and test are disjoint by construction, the base model's own reading
included. What the worked solutions *use* is not held out: `547+85` may be a link of one solution and a question of the
test split.
"""
