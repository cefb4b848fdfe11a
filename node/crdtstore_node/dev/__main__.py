"""The background process that ``crdtstore dev up`` starts; not meant to be called by people."""

from crdtstore_node.dev.supervisor import main

main()
