"""From roles to decisions, and from decisions to what an optimizer does.

Read `policy` (which gammas decay), `groups` (any factory's groups, with each gamma where the policy says), `regroup`
(an optimizer that is made already), `optimizers` (what decay does in each), `schedule` and `budget` (what it will
come to), `policy_state` (what a checkpoint keeps of it).
"""
