"""Diagnosis: the box itself (clock, disk, network, rights), the frames of each link, and the parcel for support."""
