"""Runs in which the members change: machines lose disks, are copied, join, leave and are thrown out while users work.

The question: what stays true while nobody agrees who belongs? The same production code as in every run, and the same laws, held by an
observer who knows every life of every machine. Files: ``draw`` what a seed is made of, ``place`` machines and their lives, ``links`` the
connections between them, ``trouble`` what happens to them, ``steward`` the operator, ``watch`` the observer, ``world`` the run.
"""
