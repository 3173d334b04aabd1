import { describe, expect, it, vi } from "vitest";
import { compareNames, TopicNode, TopicTree } from "../src/core/tree.ts";

let seq = 0;
const note = (tree: TopicTree, topic: string, time = 1000, skipped = 0) =>
  tree.note({ topic, payload: topic, time, skipped, seq: ++seq });

describe("the tree", () => {
  it("counts messages and topics at each level", () => {
    const tree = new TopicTree();
    note(tree, "a/b/c");
    note(tree, "a/b", 1000, 4);
    note(tree, "x");
    expect(tree.size).toBe(3);
    const a = tree.root.children?.get("a");
    expect([a?.count, a?.topics, a?.own]).toEqual([6, 2, 0]);
    expect(tree.get("a/b")?.own).toBe(5);
    expect(tree.root.count).toBe(7);
  });
  it("shows what is replayed and counts what is news, each once", () => {
    const tree = new TopicTree();
    const message = (seq: number) => ({ topic: "a/b", payload: seq, time: seq * 1000, seq });
    tree.begin("one:7");
    tree.note(message(7), true);
    expect([tree.get("a/b")?.hasValue, tree.get("a/b")?.own, tree.root.count]).toEqual([true, 0, 0]);
    tree.note(message(8));
    // the view is opened again: the same value is replayed
    tree.note(message(8), true);
    expect(tree.root.count).toBe(1);
    // what came while the connection was cut
    tree.note(message(9), true);
    expect([tree.root.count, tree.get("a/b")?.payload]).toEqual([2, 9]);
    // another log: its numbers are smaller, and its retained messages are no news
    tree.begin("two:1");
    tree.note(message(1), true);
    expect([tree.root.count, tree.get("a/b")?.payload]).toEqual([2, 1]);
    tree.note(message(2));
    expect(tree.root.count).toBe(3);
  });
  it("adds what comes to the gateway's counts, each message once, however the list and the messages meet", () => {
    const tree = new TopicTree();
    const listed = (topic: string, count: number, more = {}) => ({ topic, count, rate: 0, time: 1, ...more });
    const message = (seq: number, topic = "a/b", skipped = 0) => ({ topic, payload: seq, time: seq, seq, skipped });
    tree.begin("one:10");
    tree.note(message(9), true);
    // behind the position, before the list has come: five messages, of which four were left out
    tree.note(message(15, "a/b", 4));
    tree.note(message(16, "a/new"));
    tree.list([listed("a/b", 100), listed("a/c", 7)]);
    tree.settle(1000);
    const counts = () => ["a", "a/b", "a/c", "a/new"].map((path) => tree.find(path)?.count);
    expect(counts()).toEqual([113, 105, 7, 1]);
    expect(tree.get("a/c")?.hasValue).toBe(false);
    // its value comes after its name, and is counted already
    tree.note(message(8, "a/c"), true);
    tree.note(message(17, "a/c"));
    expect(counts()).toEqual([114, 105, 8, 1]);
    // a cut: what came meanwhile is replayed, and is in the list that is asked for then
    tree.begin("one:20");
    tree.note(message(19), true);
    tree.note(message(21));
    tree.list([listed("a/b", 106), listed("a/c", 8), listed("a/new", 1)]);
    tree.settle(1000);
    expect(counts()).toEqual([116, 107, 8, 1]);
    // another cut, and the list is here before what was missed
    tree.begin("one:25");
    tree.list([listed("a/b", 109), listed("a/c", 8), listed("a/new", 1)]);
    tree.settle(1000);
    tree.note(message(24, "a/b", 1), true);
    tree.note(message(26));
    expect(counts()).toEqual([119, 110, 8, 1]);
    // another life counts anew, and what it doesn't know had nothing
    tree.begin("two:3");
    tree.list([listed("a/b", 2)]);
    tree.settle(1000);
    expect(counts()).toEqual([2, 2, 0, 0]);
    expect(tree.root.count).toBe(2);
  });
  it("has the gateway's rates at once, of branches as well, and goes on from them", () => {
    const tree = new TopicTree();
    const now = 1_000_000;
    tree.begin("one:0");
    tree.list(["a/x", "a/y", "b"].map((topic) => ({ topic, count: 9, rate: 0.05, time: now })));
    expect(tree.isWhole).toBe(false);
    tree.settle(now);
    const rates = (at: number) => ["a", "a/x", "b"].map((path) => tree.find(path)?.perSecond(at) ?? 0);
    expect(rates(now)).toEqual([expect.closeTo(0.1), expect.closeTo(0.05), expect.closeTo(0.05)]);
    expect(tree.root.perSecond(now)).toBeCloseTo(0.15);
    for (let time = now + 20_000, seq = 1; time <= now + 300_000; time += 20_000)
      for (const topic of ["a/x", "a/y"]) tree.note({ topic, payload: 1, time, seq: seq++ });
    expect(rates(now + 300_000)).toEqual([expect.closeTo(0.1, 1), expect.closeTo(0.05), expect.closeTo(0)]);
  });
  it("shows nothing before all topics are here, and then has opened what fits", () => {
    const tree = new TopicTree();
    tree.begin("one:0");
    tree.list(["home/a/x", "home/a/y"].map((topic) => ({ topic, count: 1, rate: 0, time: 1 })));
    expect(tree.rows().map((row) => row.path)).toEqual(["home"]);
    tree.settle(1);
    const rows = tree.rows().map((row) => row.path);
    expect(rows).toEqual(["home", "home/a", "home/a/x", "home/a/y"]);
    // once: what somebody closes stays closed, and what comes with the next list opens nothing
    const home = tree.find("home");
    if (home) tree.setOpen(home, false);
    tree.begin("one:5");
    tree.settle(2);
    expect(tree.rows()).toHaveLength(1);
    // without a list, counts are of what came here
    const other = new TopicTree();
    other.begin("one:0");
    note(other, "a/b");
    other.settle(null);
    expect([other.isWhole, other.isCounted, other.rows().length]).toEqual([true, false, 2]);
  });
  it("opens few of many, unless there are few names at the top", () => {
    const open = (topics: string[]) => {
      const tree = new TopicTree();
      for (const topic of topics) note(tree, topic);
      tree.settle(null);
      return tree.rows().length;
    };
    const many = Array.from({ length: 100 }, (_, index) => index);
    expect(open(many.map((index) => `home/${index}/x`))).toBe(101);
    expect(open(many.map((index) => `${index}/x`))).toBe(100);
    expect(open(many.slice(0, 10).map((index) => `${index}/x/y`))).toBe(30);
  });
  it("shows no topic that was cleared, until something comes", () => {
    const tree = new TopicTree();
    const say = (topic: string, payload: string, more: { retained?: boolean; encoding?: string } = {}) =>
      tree.note({ topic, payload, time: 1, seq: ++seq, ...more });
    say("a/b/c", "1", { retained: true });
    say("a/b", "1", { retained: true });
    say("a/event", "1");
    const paths = () => {
      for (const node of tree.rows()) tree.setOpen(node, true);
      for (const node of tree.rows()) tree.setOpen(node, true);
      return tree.rows().map((row) => row.path);
    };
    expect(paths()).toEqual(["a", "a/b", "a/b/c", "a/event"]);
    // what the broker keeps nothing of is not cleared by an empty message
    say("a/event", "");
    // a topic above others is a level then
    say("a/b", "2");
    say("a/b", "");
    expect(paths()).toEqual(["a", "a/b", "a/b/c", "a/event"]);
    expect([tree.size, tree.root.topics, tree.reveal("a/b")?.isTopic]).toEqual([2, 2, false]);
    say("a/b/c", "");
    expect(paths()).toEqual(["a", "a/event"]);
    // the view is opened again, and its newest value is the empty one
    say("a/b/c", "");
    expect(tree.size).toBe(1);
    say("a/b/c", "3");
    expect(paths()).toEqual(["a", "a/b", "a/b/c", "a/event"]);
    // what the gateway's list says of the time before
    tree.clear("x/y");
    say("x/y", "");
    tree.clear("a/event");
    expect(paths()).toEqual(["a", "a/b", "a/b/c"]);
    say("x/y", "", { encoding: "base64" });
    expect(tree.root.topics).toBe(2);
  });
  it("keeps empty levels apart", () => {
    const tree = new TopicTree();
    for (const topic of ["/a", "a", "a/", "a//b", ""]) note(tree, topic);
    expect(tree.size).toBe(5);
    for (const topic of ["/a", "a", "a/", "a//b"]) expect(tree.get(topic)?.path).toBe(topic);
  });
  it("shows only what is open, sorted, numbers by value", () => {
    const tree = new TopicTree();
    for (const topic of ["n/10", "n/9", "m"]) note(tree, topic);
    expect(tree.rows().map((row) => row.path)).toEqual(["m", "n"]);
    const node = tree.root.children?.get("n");
    if (node) tree.setOpen(node, true);
    expect(tree.rows().map((row) => row.path)).toEqual(["m", "n", "n/9", "n/10"]);
    note(tree, "n/9.5");
    expect(tree.rows().map((row) => row.path)).toEqual(["m", "n", "n/9", "n/9.5", "n/10"]);
  });
  it("opens the way to a topic", () => {
    const tree = new TopicTree();
    note(tree, "a/b/c");
    expect(tree.reveal("a/b/c")?.path).toBe("a/b/c");
    expect(tree.rows()).toHaveLength(3);
    expect(tree.reveal("a/x")).toBeUndefined();
  });
  it("finds topics by words in any order and case", () => {
    const tree = new TopicTree();
    for (const topic of ["Sensors/Kitchen/State", "sensors/hall/state", "plug/kitchen"]) note(tree, topic);
    expect(tree.search("state KITCH").map((node) => node.path)).toEqual(["Sensors/Kitchen/State"]);
    expect(tree.search("  ")).toEqual([]);
  });
  it("finds topics by their values, the newest ones, but not by bytes", () => {
    const tree = new TopicTree();
    const say = (topic: string, payload: unknown, encoding?: string) =>
      tree.note({ topic, payload, encoding, time: 1, seq: ++seq });
    say("hall/lamp", { state: "Heating", level: 21.5 });
    say("hall/text", "it was heating");
    say("hall/bytes", "aGVhdGluZw==", "base64");
    const found = (query: string) => tree.search(query).map((node) => node.path);
    expect(found("heating")).toEqual(["hall/lamp", "hall/text"]);
    expect(found("LAMP 21.5")).toEqual(["hall/lamp"]);
    expect(found("aGVh")).toEqual([]);
    say("hall/lamp", { state: "off" });
    expect(found("heating")).toEqual(["hall/text"]);
    expect(found("off")).toEqual(["hall/lamp"]);
  });
  it("tells the rate of a topic by its rhythm and of a branch by counting", () => {
    const tree = new TopicTree();
    for (let index = 0; index < 60; index++) {
      note(tree, "a/b", 1_000_000 + index * 1000);
      note(tree, "a/c", 1_000_000 + index * 1000);
    }
    const now = 1_059_500;
    expect(tree.get("a/b")?.perSecond(now)).toBeCloseTo(1);
    expect(tree.root.children?.get("a")?.perSecond(now)).toBeCloseTo(2, 0);
    expect(tree.get("a/b")?.perSecond(now + 3_600_000)).toBe(0);
  });
  it("counts what was left out on the way for the rate of a topic", () => {
    const tree = new TopicTree();
    for (let index = 0; index < 10; index++) note(tree, "a", 1_000_000 + index * 500, 49);
    expect(tree.get("a")?.perSecond(1_004_600)).toBeCloseTo(100);
  });
  it("touches a node for each level of a new topic and one for a known one, among 100,000 too, and finds one of them", () => {
    const tree = new TopicTree();
    for (let index = 0; index < 100_000; index++) note(tree, `site/${index % 100}/device-${index}/state`);
    const touched = vi.spyOn(TopicNode.prototype, "child");
    note(tree, "site/7/another/state");
    expect(touched).toHaveBeenCalledTimes(4);
    note(tree, "site/7/another/state");
    expect(touched).toHaveBeenCalledTimes(4);
    touched.mockRestore();
    expect(tree.search("device-99999")).toHaveLength(1);
  }, 60_000);
});

describe("names", () => {
  it("are ordered as people count", () => {
    expect(["b10", "b2", "a", "b2c", "b"].sort(compareNames)).toEqual(["a", "b", "b2", "b2c", "b10"]);
    expect(["01", "1"].sort(compareNames)).toEqual(["01", "1"]);
  });
});
