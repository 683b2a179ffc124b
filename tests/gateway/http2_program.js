// 100 puts side by side on one connection, and a watch that reads their events as lines.
"use strict";
const fs = require("fs");
const http2 = require("http2");

const [url, ca] = process.argv.slice(2);
const client = http2.connect(url, url.startsWith("https") ? { ca: fs.readFileSync(ca) } : {});
const fail = (error) => {
  console.log(String(error));
  process.exit(1);
};
client.on("error", fail);
setTimeout(() => fail("not in time"), 20000).unref();

function post(path, body) {
  const stream = client.request({ ":method": "POST", ":path": path, "content-type": "application/json" });
  stream.setEncoding("utf8");
  stream.on("error", fail);
  stream.end(JSON.stringify(body));
  return stream;
}

function put(number) {
  return new Promise((resolve) => {
    let text = "";
    const stream = post("/v3/kv/put", { key: "aw==", value: Buffer.from(String(number)).toString("base64") });
    stream.on("data", (piece) => (text += piece));
    stream.on("end", () => resolve(BigInt(JSON.parse(text).header.revision)));
  });
}

let rest = "";
let last = 0n;
let events = 0;
const watch = post("/v3/watch", { create_request: { key: "aw==" } });
watch.on("data", (piece) => {
  const lines = (rest + piece).split("\n");
  rest = lines.pop();
  for (const line of lines) {
    const result = JSON.parse(line).result;
    if (result.created) {
      Promise.all([...Array(100).keys()].map(put)).catch(fail);
    }
    for (const event of result.events || []) {
      if (BigInt(event.kv.mod_revision) <= last) fail("out of order");
      last = BigInt(event.kv.mod_revision);
      events += 1;
    }
  }
  if (events === 100) {
    console.log("100 puts, 100 events, in order");
    watch.close(http2.constants.NGHTTP2_CANCEL);
    client.destroy();
    process.exit(0);
  }
});
