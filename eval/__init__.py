"""Measuring made videos against true ones. Nothing here takes part in making them.

run         the command: folders of videos in, a table of metrics out
suite       which metrics there are, and which network each needs
protocol    everything besides the videos that a number depends on
listing, clips, cache       which clips, how they are read, which features of them are known already
metrics/    what is computed from features: the contract (`metric`), one module per kind
networks/   what features come from: the field's networks by their packages, and those that install or ship with us
testset     sets of clips to measure on; testset_script and testset_voices are parts of making one
provenance  versions, machine and commit, written beside every result
"""
