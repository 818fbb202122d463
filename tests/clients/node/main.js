// A Node client of Consul, unmodified, against one agent: keys, sessions, locks, transactions, its watch helper, the catalog.
// Ends with 0 if everything is as with Consul. See ../run. (This client gives `undefined` for an answer of `false`.)
const assert = require("node:assert");
const Consul = require("consul");

async function main() {
  const [host, port] = process.env.CONSUL_HTTP_ADDR.split(":");
  const consul = new Consul({ host, port: Number(port) });

  assert.strictEqual(await consul.kv.get("node/none"), undefined);
  assert.strictEqual(await consul.kv.set({ key: "node/a", value: "1", flags: 3 }), true);
  const entry = await consul.kv.get("node/a");
  assert.deepStrictEqual([entry.Value, entry.Flags], ["1", 3]);
  assert.ok(!(await consul.kv.set({ key: "node/a", value: "2", cas: "0" })));
  assert.deepStrictEqual(await consul.kv.keys("node/"), ["node/a"]);

  const one = await consul.session.create({ name: "one", ttl: "10s", lockdelay: "0s" });
  const two = await consul.session.create({ ttl: "10s", lockdelay: "0s" });
  assert.strictEqual((await consul.session.renew(one.ID))[0].Name, "one");
  assert.strictEqual(await consul.kv.set({ key: "node/lock", value: "me", acquire: one.ID }), true);
  assert.ok(!(await consul.kv.set({ key: "node/lock", value: "other", acquire: two.ID })));

  // The watch helper sees the lock being let go of when its session ends.
  const watch = consul.watch({ method: consul.kv.get, options: { key: "node/lock" }, backoffFactor: 100 });
  const free = new Promise((resolve, reject) => {
    watch.on("change", (data) => data && !data.Session && resolve());
    watch.on("error", reject);
  });
  await new Promise((resolve) => watch.once("change", resolve));
  await consul.session.destroy(one.ID);
  await free;
  watch.end();
  assert.strictEqual(await consul.kv.set({ key: "node/lock", value: "other", acquire: two.ID }), true);
  assert.strictEqual(await consul.kv.set({ key: "node/lock", value: "", release: two.ID }), true);

  const done = await consul.transaction.create([
    { KV: { Verb: "set", Key: "node/t", Value: Buffer.from("1").toString("base64") } },
    { KV: { Verb: "get", Key: "node/t" } },
  ]);
  assert.strictEqual(done.Results.length, 2);
  await assert.rejects(consul.transaction.create([{ KV: { Verb: "get", Key: "node/nothing" } }]), /409|conflict/i);

  await consul.catalog.node.list();
  const checks = (await consul.health.service({ service: "consul", passing: true }))[0].Checks;
  assert.strictEqual(checks[0].CheckID, "serfHealth");
  await consul.session.destroy(two.ID);
  assert.deepStrictEqual(await consul.session.list(), []);
  console.log("Node: as with Consul");
}

main().catch((error) => {
  console.error(error);
  process.exit(1);
});
