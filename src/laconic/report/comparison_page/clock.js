"use strict";
// The time of a round on a network, by the model of `laconic plan`: legs.py lists the messages of an exchange,
// network.py and simulate.py say when each starts and ends, async_timing.py has the server that takes gradients as
// they come. Times are nanoseconds here. Nothing in this file touches the page: node runs it too.
const Clock = (() => {
  const HOW_MANY = 20;  // updates of each worker before an asynchronous server's period is constant
  const EXACT = 20000;  // messages of a round up to which every size of a round is timed for itself

  const FREE = [];  // waits for nothing

  // The messages of one exchange in the order of the model, each with the steps that it waits for.
  function messages(shape, exchange, up, down) {
    const {workers, nodes} = shape, listed = [], last = new Map();
    function send(sender, receiver, bytes, after) {
      const own = last.get(sender);
      last.set(sender, {place: listed.length, after});
      // The conditions of the sender's message before need not be named again.
      const waits = own === undefined ? after : own.after === after ? [own.place] : [...after, own.place];
      listed.push({node: sender, receiver, bytes, after: waits});
    }
    if (exchange.answering === "engine") return ring(workers, up);
    if (exchange.answering === "workers") {
      for (let slot = 1; slot < workers; slot++)
        for (let rank = 0; rank < workers; rank++) send(rank, (rank + slot) % workers, up, FREE);
      return listed;
    }
    if (exchange.answering === "nobody") {
      const edges = exchange.peers.flatMap((to, rank) => to.map(peer => [(peer - rank + workers) % workers, rank, peer]));
      for (const [, rank, peer] of ordered(edges)) send(rank, peer, up, FREE);
      return listed;
    }
    const {servers} = exchange, needs = servers.map(() => []), alone = servers.length === 1;
    const slot = (from, to) => (from - to + nodes) % nodes;
    const pairs = [];
    for (let rank = 0; rank < workers; rank++)
      servers.forEach((server, index) => { if (server !== rank) pairs.push([rank, index, server]); });
    for (const [, rank, index, server] of ordered(pairs.map(
      ([rank, index, server]) => [alone ? rank : slot(server, rank), rank, index, server]))) {
      needs[index].push(listed.length);
      send(rank, server, up, FREE);
    }
    for (const [, server, index, rank] of ordered(pairs.map(
      ([rank, index, server]) => [alone ? rank : slot(rank, server), server, index, rank])))
      send(server, rank, down, needs[index]);
    return listed;
  }
  const ordered = rows => rows.sort((one, other) => one[0] - other[0] || one[1] - other[1]);

  // A ring all-reduce: in slot s, worker k+s sends partition k on.
  function ring(n, bytes) {
    const steps = [], smallest = Math.floor(bytes / n), larger = bytes - smallest * n;
    for (let place = 0; place < n * (2 * n - 2); place++) {
      const slot = Math.floor(place / n), k = place % n;
      steps.push({node: (k + slot) % n, receiver: (k + slot + 1) % n, bytes: smallest + (k < larger ? 1 : 0),
        after: place < n ? [] : [place - n]});
    }
    return steps;
  }

  class Queue {  // by time, then in the order of arrival
    constructor() { this.items = []; this.number = 0; }
    get length() { return this.items.length; }
    get next() { return this.items[0][0]; }
    push(time, what) {
      const items = this.items, item = [time, this.number++, what];
      let at = items.length;
      items.push(item);
      while (at > 0 && before(item, items[(at - 1) >> 1])) { items[at] = items[(at - 1) >> 1]; at = (at - 1) >> 1; }
      items[at] = item;
    }
    shift() {
      const items = this.items, first = items[0], item = items.pop();
      let at = 0;
      while (items.length && 2 * at + 1 < items.length) {
        let child = 2 * at + 1;
        if (child + 1 < items.length && before(items[child + 1], items[child])) child++;
        if (!before(items[child], item)) break;
        items[at] = items[child];
        at = child;
      }
      if (items.length) items[at] = item;
      return first;
    }
  }
  const before = (one, other) => one[0] < other[0] || (one[0] === other[0] && one[1] < other[1]);

  // Nodes around an unlimited switch. `network` has bytes per second up and down, and seconds of latency.
  class Ports {
    constructor(nodes, network) {
      this.send = new Float64Array(nodes);
      this.receive = new Float64Array(nodes);
      this.network = network;
      this.shared = network.up !== network.down;  // then a port takes several messages at once
    }
    duration(bytes, bytesPerSecond) {
      return Math.ceil(this.network.latency * 1e9 + bytes * 1e9 / bytesPerSecond - 1e-6);
    }
    // Request a message at `now`, and return when it starts and ends.
    message(now, sender, receiver, bytes) {
      if (sender === receiver) return [now, now];
      const {up, down} = this.network, {send, receive} = this;
      if (!this.shared) {
        const start = Math.max(now, send[sender], receive[receiver]), end = start + this.duration(bytes, up);
        send[sender] = receive[receiver] = end;
        return [start, end];
      }
      const start = Math.max(now, send[sender]);
      send[sender] = start + this.duration(bytes, up);
      receive[receiver] = Math.max(now, receive[receiver]) + this.duration(bytes, down);
      return [start, Math.max(send[sender], receive[receiver])];
    }
  }

  // Run the messages of one exchange from time 0. Steps of one instant are requested in listed order.
  function run(steps, nodes, network) {
    const ports = new Ports(nodes, network), queue = new Queue(), times = new Array(steps.length);
    const opens = steps.map(() => []), awaited = steps.map(step => step.after.length);
    steps.forEach((step, place) => step.after.forEach(other => opens[other].push(place)));
    let ready = [...steps.keys()].filter(place => !awaited[place]), now = 0, end = 0;
    while (ready.length) {
      for (const place of ready.sort((one, other) => one - other)) {
        const step = steps[place], [start, over] = ports.message(now, step.node, step.receiver, step.bytes);
        times[place] = {requested: now, start, end: over};
        end = Math.max(end, over);
        queue.push(over, place);
      }
      ready = [];
      while (!ready.length && queue.length) {
        now = queue.next;
        while (queue.length && queue.next === now)
          for (const place of opens[queue.shift()[2]]) if (--awaited[place] === 0) ready.push(place);
      }
    }
    return {times, end};
  }

  // Which worker may take the model, and which gradient may be applied: bounded_staleness.py.
  class Bound {
    constructor({maximum, late}) {
      Object.assign(this, {maximum, late, version: 0, bases: new Map(), requesting: [], held: []});
      this.waits = late === "hold" && maximum !== null;
    }
    feasible(bases, version) {
      if (!this.waits) return true;
      const ages = bases.map(base => base === null ? 0 : version - base).sort((one, other) => other - one);
      return ages.every((age, index) => age + index <= this.maximum);
    }
    admit() {
      const admitted = [];
      while (this.requesting.length && this.feasible([...this.bases.values(), null], this.version)) {
        const worker = this.requesting.shift();
        this.bases.set(worker, null);
        admitted.push(worker);
      }
      return admitted;
    }
    arrive(worker) {
      const stale = this.version - this.bases.get(worker), over = [];
      if (this.late === "drop" && this.maximum !== null && stale > this.maximum) {
        this.bases.delete(worker);
        over.push([worker, false]);
      } else this.held.push(worker);
      const may = one => this.feasible(
        [...this.bases].filter(([other]) => other !== one).map(([, base]) => base), this.version + 1);
      for (let one; (one = this.held.find(may)) !== undefined;) {
        this.held.splice(this.held.indexOf(one), 1);
        this.bases.delete(one);
        this.version++;
        over.push([one, true]);
      }
      return over;
    }
  }

  // Nanoseconds between two updates of one worker, at a server that applies each gradient at its arrival.
  function period(shape, up, down, network, compute) {
    const {workers, bound} = shape, server = workers, ports = new Ports(workers + 1, network);
    const queue = new Queue(), rule = new Bound(bound), updates = [];
    const pull = now => {
      for (const worker of rule.admit()) {
        const [start, end] = ports.message(now, server, worker, down);
        queue.push(start, () => rule.bases.set(worker, rule.version));
        queue.push(end, at => queue.push(at + compute, begun => {
          const [, arrives] = ports.message(begun, worker, server, up);
          queue.push(arrives, then => {
            for (const [one, applied] of rule.arrive(worker)) {
              if (applied) updates.push(then);
              rule.requesting.push(one);
            }
            pull(then);
          });
        }));
      }
    };
    for (let worker = 0; worker < workers; worker++) rule.requesting.push(worker);
    pull(0);
    while (updates.length < 2 * HOW_MANY * workers) { const [time, , what] = queue.shift(); what(time); }
    return (updates[2 * HOW_MANY * workers - 1] - updates[HOW_MANY * workers - 1]) / HOW_MANY;
  }

  // The bytes of a frame, which is a share of what all workers together send in a round.
  const frame = (share, bytes) => Math.round(share * bytes);

  const gradients = (shape, compute) => compute * shape.gradients * shape.localSteps;

  // Seconds of one round in which all workers send `up` and receive `down` bytes.
  function roundSeconds(shape, exchanges, up, down, network, compute) {
    const own = gradients(shape, compute);
    if (shape.bound) {
      const [one] = exchanges;
      return period(shape, frame(one.up, up), frame(one.down, down), network, Math.round(own * 1e9)) / 1e9;
    }
    const total = exchanges.reduce((sum, exchange) => sum + run(
      messages(shape, exchange, frame(exchange.up, up), frame(exchange.down, down)), shape.nodes, network).end, 0);
    return own + total / 1e9;
  }

  // The messages of one round with their times in seconds from its start, one exchange after the other.
  function roundMessages(shape, exchanges, up, down, network, compute) {
    let begin = gradients(shape, compute);
    return exchanges.flatMap(exchange => {
      const steps = messages(shape, exchange, frame(exchange.up, up), frame(exchange.down, down));
      const {times, end} = run(steps, shape.nodes, network), from = begin;
      begin += end / 1e9;
      return steps.map((step, place) => ({sender: step.node, receiver: step.receiver, bytes: step.bytes,
        exchange: exchange.name, requested: from + times[place].requested / 1e9,
        start: from + times[place].start / 1e9, end: from + times[place].end / 1e9}));
    });
  }

  function nMessages(shape, exchanges) {
    const n = shape.workers;
    const of = {engine: 2 * n * (n - 1), workers: n * (n - 1)};
    return exchanges.reduce((sum, {answering, peers, servers}) => sum + (of[answering] ??
      (answering === "nobody" ? peers.reduce((all, to) => all + to.length, 0) : 2 * n * servers.length)), 0);
  }

  // Rounds up to a 256th of an octave are timed as one, a seventh of a percent at most, so that many rounds are cheap.
  const coarse = bytes => bytes > 0 ? 2 ** (Math.round(Math.log2(bytes) * 256) / 256) : 0;

  // Returns a function that times rounds of one shape on one network, and remembers what it has timed.
  function timer(shape, exchanges, mean, network, compute) {
    const known = new Map(), large = nMessages(shape, exchanges) > EXACT;
    return (up, down) => {
      const [of, to] = large ? mean : [coarse(up), coarse(down)], key = `${of} ${to}`;
      if (!known.has(key)) known.set(key, roundSeconds(shape, exchanges, of, to, network, compute));
      return known.get(key);
    };
  }
  return {roundSeconds, roundMessages, timer, messages, run};
})();
if (typeof module !== "undefined") module.exports = Clock;
