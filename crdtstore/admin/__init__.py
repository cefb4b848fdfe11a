"""What operators ask of a node about its members: who they are, who is to go, what that costs.

asked           the requests, every field checked
identity        what this node is at the moment: a member, one that joins, leaves, was removed, is fenced
view            who the members are, as this node knows them
heard           what was heard of the others, and when
costs           what a change costs, and what an operator can do now
holding         which member holds back how much of the log
orphaned        the requests about commits that went with a removed id
administration  the requests judged, ordered and answered
"""
