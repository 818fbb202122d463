"""A Python client of Consul, unmodified, against one agent: keys, sessions, locks, transactions, waits, the catalog.

Ends with 0 if everything is as with Consul. See ../run.
"""

import os
import threading

import consul

HOST, PORT = os.environ["CONSUL_HTTP_ADDR"].split(":")


def client():
    return consul.Consul(host=HOST, port=int(PORT))


c = client()
assert c.status.leader()
assert c.kv.get("py/none")[1] is None
assert c.kv.put("py/a", b"1", flags=3)
entry = c.kv.get("py/a")[1]
assert (entry["Value"], entry["Flags"]) == (b"1", 3)
assert c.kv.put("py/a", "2", cas=0) is False

one = c.session.create(name="one", ttl=10, lock_delay=0, behavior="delete")
two = c.session.create(ttl=10, lock_delay=0)
assert c.session.info(one)[1]["Name"] == "one"
c.session.renew(one)
assert c.kv.put("py/lock", "me", acquire=one) is True
assert c.kv.put("py/lock", "other", acquire=two) is False

# A wait ends when the session does, and its key with it.
index, _ = c.kv.get("py/lock")
found = []
waiting = threading.Thread(target=lambda: found.append(client().kv.get("py/lock", index=index, wait="60s")))
waiting.start()
c.session.destroy(one)
waiting.join()
assert found[0][1] is None and int(found[0][0]) > int(index), found
assert c.kv.put("py/lock", "other", acquire=two) is True
assert c.kv.put("py/lock", "", release=two) is True

done = c.txn.put([{"KV": {"Verb": "set", "Key": "py/t", "Value": "MQ=="}}, {"KV": {"Verb": "get", "Key": "py/t"}}])
assert [result["KV"]["Key"] for result in done["Results"]] == ["py/t", "py/t"], done

assert c.catalog.register("py-node", "10.0.0.1", service={"service": "web", "port": 80})
assert c.catalog.service("web")[1][0]["ServicePort"] == 80
assert c.catalog.deregister("py-node")
assert c.health.service("consul", passing=True)[1][0]["Checks"][0]["CheckID"] == "serfHealth"
assert c.agent.members()
c.session.destroy(two)
assert c.session.list()[1] == []
print("Python: as with Consul")
