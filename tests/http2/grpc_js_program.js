// grpc-js against a server on loopback: node grpc_js_program.js MODULES PORT MODE
// Prints one line of JSON with what happened.
'use strict';
const path = require('node:path');
const [modules, port, mode] = process.argv.slice(2);
const grpc = require(path.resolve(modules, '@grpc/grpc-js'));

const client = new grpc.Client(`127.0.0.1:${port}`, grpc.credentials.createInsecure(), {
  'grpc.max_receive_message_length': -1,
  'grpc.max_send_message_length': -1,
});
const same = bytes => bytes;
const done = told => {
  console.log(JSON.stringify(told));
  client.close();
};

function call(method, body, options = {}, metadata = new grpc.Metadata()) {
  return new Promise(resolve => {
    client.makeUnaryRequest(`/t.T/${method}`, same, same, Buffer.from(body), metadata, options, (error, answer) =>
      resolve(error ? { code: error.code, details: error.details, metadata: error.metadata } : { code: 0, answer }));
  });
}

function count(results) {
  const codes = {};
  for (const { code } of results) codes[code] = (codes[code] || 0) + 1;
  return codes;
}

const many = (number, method, options) =>
  Promise.all(Array.from({ length: number }, () => call(method, 'x', options())));

const modes = {
  async calls() {
    const sizes = [];
    for (const size of [0, 1, 16379, 16380, 100000, 1 << 20, 2000000]) {
      sizes.push((await call('Size', String(size))).answer.length === size);
      sizes.push((await call('Echo', Buffer.alloc(size, 1))).answer.equals(Buffer.alloc(size, 1)));
    }
    done({ sizes, codes: count(await many(2000, 'Echo', () => ({}))) });
  },
  async status() {
    const { code, details, metadata } = await call('Fail', '');
    const unknown = await call('None', '');
    done({ code, details, reason: metadata.get('reason'), detail: [...metadata.get('detail-bin')[0]], unknown: unknown.details });
  },
  async deadline() {
    await call('Echo', 'first');
    const deadline = Date.now() + 700;
    const codes = count(await many(1500, 'Held', () => ({ deadline })));
    done({ codes, after: (await call('Echo', 'alive')).answer.toString() });
  },
  async deadlines() {
    // Each deadline another millisecond: no two blocks of fields are alike.
    const codes = {};
    for (let number = 0; number < 300; number++) {
      const { code } = await call('Echo', 'x', { deadline: Date.now() + 5000 + number });
      codes[code] = (codes[code] || 0) + 1;
    }
    done({ codes });
  },
  async early() {
    const ends = [];
    for (let number = 0; number < 3; number++) {
      const stream = client.makeBidiStreamRequest('/t.T/OneThenFail', same, same, new grpc.Metadata(), {});
      const told = [];
      stream.on('data', data => told.push(data.toString()));
      stream.on('error', () => {});
      stream.write(Buffer.from('x'));
      ends.push(await new Promise(resolve => stream.on('status', ({ code, details }) => resolve([told.join(), code, details]))));
    }
    done({ ends, after: (await call('Echo', 'alive')).answer.toString() });
  },
  async both() {
    const stream = client.makeBidiStreamRequest('/t.T/Both', same, same, new grpc.Metadata(), {});
    const sizes = [];
    stream.on('data', data => {
      sizes.push(data.length);
      if (sizes.length === 3) stream.end();
    });
    for (const size of [0, 100000, 1000000]) stream.write(Buffer.alloc(size));
    const code = await new Promise(resolve => stream.on('status', status => resolve(status.code)));
    done({ sizes, code });
  },
  async loop() {
    // Calls without pause until stdin ends.
    const codes = {};
    let stop = false;
    process.stdin.on('end', () => { stop = true; }).resume();
    console.log('READY');
    await Promise.all(Array.from({ length: 20 }, async () => {
      while (!stop) {
        const { code } = await call('Echo', 'x', { waitForReady: true });
        codes[code] = (codes[code] || 0) + 1;
      }
    }));
    done({ codes });
  },
};

modes[mode]();
