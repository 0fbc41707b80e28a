"""Volumes of pods: what they contain, how they get onto the disk, and what containers mount of them."""
