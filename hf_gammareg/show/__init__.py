"""For people: tables, files, cards and pictures.

Read `report` (a table, a file, one line; two policies compared), `answers` (what the command line prints), `lock`
(roles that a test holds still), `card` (a model card), `blocks` and `picture` (the network drawn by role), `html` (one
file, inert), `strip` (the network inside it) and `page` (all that is known of a model).
"""
