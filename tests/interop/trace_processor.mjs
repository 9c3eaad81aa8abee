// Asks Perfetto's trace processor about traces.
//
//   node trace_processor.mjs FOLDER SQL TRACE...
//
// FOLDER has engine_bundle.js and the trace_processor*.wasm beside it, as the Perfetto page does.
// The traces are loaded as one (arrays of events, joined). Prints the rows as JSON: an array of
// objects. The engine is a web worker that takes and gives messages of trace_processor.proto.
import {readFileSync} from 'node:fs';
import vm from 'node:vm';

const [folder, sql, ...paths] = process.argv.slice(2);

// ---- what the worker finds around it -----------------------------------------------------------

globalThis.self = globalThis;
globalThis.importScripts = () => {};
globalThis.location = {href: 'file:///engine_bundle.js'};
globalThis.WorkerGlobalScope = Object;
globalThis.XMLHttpRequest = class {  // of the .wasm, which it loads at once
  open(method, url) { this.path = `${folder}/${url.split('/').pop()}`; }
  send() { this.response = new Uint8Array(readFileSync(this.path)).buffer; }
};
const nodeProcess = process;
delete globalThis.process;  // or it takes itself to be in Node
console.log = console.warn = () => {};
vm.runInThisContext(readFileSync(`${folder}/engine_bundle.js`, 'utf8'));
globalThis.process = nodeProcess;

// ---- messages: fields of varints (0), 8 bytes (1) and bytes (2) --------------------------------

function varint(value) {
  const bytes = [];
  for (let v = BigInt(value); ; v >>= 7n) {
    bytes.push(Number(v & 127n) | (v > 127n ? 128 : 0));
    if (v <= 127n) return bytes;
  }
}
const number = (field, value) => Buffer.from([...varint(field << 3), ...varint(value)]);
const bytes = (field, value) =>
    Buffer.concat([Buffer.from([...varint((field << 3) | 2), ...varint(value.length)]), value]);

class Reader {
  constructor(data) { this.data = data; this.at = 0; }
  get more() { return this.at < this.data.length; }
  varint() {
    let value = 0n;
    for (let shift = 0n; ; shift += 7n) {
      const byte = this.data[this.at++];
      value |= BigInt(byte & 127) << shift;
      if (byte < 128) return BigInt.asIntN(64, value);
    }
  }
  double() { this.at += 8; return this.data.readDoubleLE(this.at - 8); }
  bytes() {
    const length = Number(this.varint());
    this.at += length;
    return this.data.subarray(this.at - length, this.at);
  }
}
function fieldsOf(data) {
  const fields = [];
  for (const r = new Reader(data); r.more;) {
    const tag = Number(r.varint());
    const read = [() => r.varint(), () => r.double(), () => r.bytes()][tag & 7];
    fields.push([tag >> 3, read()]);
  }
  return fields;
}
const packed = (data, read) => {
  const values = [];
  for (const r = new Reader(data); r.more;) values.push(read(r));
  return values;
};

// ---- TraceProcessorRpc -------------------------------------------------------------------------

const kAppend = 1, kFinish = 2, kQuery = 3;
const channel = new MessageChannel();
let received = Buffer.alloc(0), wake = () => {};
channel.port1.onmessage = (e) => {
  received = Buffer.concat([received, Buffer.from(e.data)]);
  wake();
};
self.onmessage({data: channel.port2});

let sequence = 0;
function ask(request, ...more) {
  const rpc = Buffer.concat([number(1, sequence++), number(2, request), ...more]);
  channel.port1.postMessage(new Uint8Array(bytes(1, rpc)));
}
// The next answer, as its fields.
async function answer() {
  for (;;) {
    const r = new Reader(received);
    if (received.length > 1) {
      r.varint();
      const length = Number(r.varint());
      if (r.at + length <= received.length) {
        const rpc = received.subarray(r.at, r.at + length);
        received = received.subarray(r.at + length);
        return new Map(fieldsOf(rpc));
      }
    }
    await new Promise((resolve) => { wake = resolve; });
  }
}

async function rows(query) {
  ask(kQuery, bytes(103, bytes(1, Buffer.from(query))));
  const names = [], found = [];
  let row = {}, column = 0;
  for (let last = false; !last;) {
    for (const [field, value] of fieldsOf((await answer()).get(203))) {
      if (field === 1) names.push(value.toString());
      if (field === 2) throw new Error(value.toString());
      if (field !== 3) continue;
      let kinds = [], integers = [], floats = [], texts = [];
      for (const [f, v] of fieldsOf(value)) {
        if (f === 1) kinds = packed(v, (r) => Number(r.varint()));
        if (f === 2) integers = packed(v, (r) => r.varint());
        if (f === 3) floats = packed(v, (r) => r.double());
        if (f === 5) texts = v.toString().split('\0');
        if (f === 6) last = v !== 0n;
      }
      for (const kind of kinds) {
        const cell = kind === 2 ? Number(integers.shift()) : kind === 3 ? floats.shift() :
            kind === 4 ? texts.shift() : null;
        row[names[column++]] = cell;
        if (column < names.length) continue;
        found.push(row);
        row = {};
        column = 0;
      }
    }
  }
  return found;
}

const events = paths.flatMap((path) => JSON.parse(readFileSync(path, 'utf8')));
await new Promise((resolve) => setTimeout(resolve));  // the engine ends its beginning
ask(kAppend, bytes(101, Buffer.from(JSON.stringify(events))));
await answer();
ask(kFinish);
await answer();
nodeProcess.stdout.write(JSON.stringify(await rows(sql)) + '\n');
nodeProcess.exit(0);
