// A session (protos/connect_kv/rpc/session.proto): many requests on one stream, each command exactly once.
import grpc from "@grpc/grpc-js";
import loader from "@grpc/proto-loader";

const RETRY_MS = 100;

function services(protos) {
  const options = { includeDirs: [protos], keepCase: true, longs: String, defaults: true, oneofs: true };
  return grpc.loadPackageDefinition(loader.loadSync("connect_kv/rpc/session.proto", options)).connect_kv.v1;
}

export class Session {
  // `addresses`: host:port of members, asked in turn; `protos`: this project's directory of that name.
  constructor(addresses, protos, ttl = 60) {
    const { Session: Service } = services(protos);
    this.clients = addresses.map((address) => new Service(address, grpc.credentials.createInsecure()));
    this.ttl = ttl;
    this.id = "0"; // 0 opens a session; its id resumes it, on any member
    this.window = 1;
    this.next = 1;
    this.calls = new Map(); // what is not answered, by number, lowest first
    this.unsent = []; // numbers that wait for the stream or its window
    this.underWay = 0;
    this.turn = 0;
    this.connect();
  }

  // One request, as `Command` in command.proto names it: {put: {...}}, {range: {...}}, {txn: {...}}.
  call(request) {
    return new Promise((resolve, reject) => {
      const number = this.next++;
      this.calls.set(number, { command: { number, ...request }, resolve, reject });
      this.unsent.push(number);
      // Whatever is asked for in this turn of the event loop travels as one batch.
      if (this.unsent.length === 1) setImmediate(() => this.flush());
    });
  }

  put = (key, value) => this.call({ put: { key: Buffer.from(key), value: Buffer.from(value) } });
  get = (key) => this.call({ range: { key: Buffer.from(key) } });

  connect() {
    const stream = this.clients[this.turn++ % this.clients.length].Open();
    stream.on("data", (replies) => this.answered(replies));
    stream.on("error", (error) => this.broken(error));
    stream.write({ session: this.id, floor: this.floor(), commands: [], ttl: this.ttl });
    this.opening = stream;
  }

  // Every number below has its answer: the members may forget those.
  floor() {
    const [lowest] = this.calls.keys();
    return lowest ?? this.next;
  }

  flush() {
    const room = Math.min(this.unsent.length, this.window - this.underWay);
    if (!this.stream || room <= 0) return;
    const commands = this.unsent.splice(0, room).map((number) => this.calls.get(number).command);
    this.underWay += room;
    this.stream.write({ session: this.id, floor: this.floor(), commands });
  }

  answered({ session, results, window }) {
    if (!this.stream) {
      // The first batch of replies. What was under way when the last stream broke is sent again, with
      // its old numbers: a command that was carried out already is answered with the result it had.
      this.stream = this.opening;
      [this.id, this.window, this.underWay] = [session, window, 0];
      this.unsent = [...this.calls.keys()];
    }
    const { stream } = this;
    this.underWay -= results.length;
    for (const result of results) {
      const number = Number(result.number);
      if (result.failure?.code === grpc.status.UNAVAILABLE) setTimeout(() => this.again(number, stream), RETRY_MS);
      else this.settle(number, result);
    }
    this.flush();
  }

  // A member could not carry it out just now, for want of a leader perhaps: later, on the same `stream`.
  // One that was opened meanwhile sends it with all others.
  again(number, stream) {
    if (this.closed || this.stream !== stream) return;
    this.unsent.push(number);
    this.flush();
  }

  settle(number, result) {
    const { resolve, reject } = this.calls.get(number);
    this.calls.delete(number);
    if (result.failure) reject(new Error(result.failure.message));
    else resolve(result[result.result]);
  }

  broken(error) {
    this.stream = null;
    if (this.closed) return;
    if (error.code === grpc.status.UNAVAILABLE) {
      setTimeout(() => this.connect(), RETRY_MS);
      return;
    }
    // The session has expired, or is no good: nobody can know any more what became of these.
    for (const { reject } of this.calls.values()) reject(error);
    this.calls.clear();
  }

  close() {
    this.closed = true;
    this.opening.end();
    this.clients.forEach((client) => client.close());
  }
}
