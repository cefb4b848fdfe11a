"""The demo: one real week of flights at three regions, one cut, one proof (``crdtstore demo``).

The question it turns on: how can a run convince somebody who does not trust us? By keeping the judge apart from the
judged. What must come out is computed by sqlite3 over the same CSV (``expected``), what was acknowledged is read back
from files which the writers append as replies arrive (``acks``), and the nodes are asked only for what they hold
(``observe``). ``verdict`` compares the three.
"""
