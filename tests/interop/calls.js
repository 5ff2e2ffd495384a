// node calls.js SOCKET CASE [ARGUMENT]: makes some calls and prints what came of them as one JSON
// object.
'use strict';

const fs = require('fs');
const grpc = require('@grpc/grpc-js');
const {connect, call, explain} = require('./twinroot.js');

const [socket, name, argument] = process.argv.slice(2);
const clients = connect(socket);
const PROGRAM = {vcpus: [{steps: [{barrier: {}}]}]};

const outcome = (promise) => promise.then((answer) => ({answer}), explain);

// All messages of a stream, and how it ended.
function drain(stream, onMessage = () => {}) {
  return new Promise((resolve) => {
    const messages = [];
    stream.on('data', (message) => {
      messages.push(message);
      onMessage(stream);
    });
    stream.on('error', (error) => resolve({messages, ...explain(error)}));
    stream.on('end', () => resolve({messages, code: 'OK'}));
  });
}

function create(vmId, vm = {}) {
  return call(clients.vm, 'createVm', {
    vmId,
    vm: {memoryBytes: 16 << 20, vcpus: 1, backend: 'BACKEND_SIM', program: PROGRAM, ...vm},
  });
}

function upload(chunks) {
  return new Promise((resolve, reject) => {
    const stream = clients.vm.uploadImage((error, answer) => error ? reject(error) : resolve(answer));
    for (const chunk of chunks) stream.write(chunk);
    stream.end();
  });
}

const cases = {
  // One failure of each sort.
  async errors() {
    await create('errors');
    const set = (gpa, size) => call(clients.memory, 'setMemoryAttributes', {
      vm: 'errors', ranges: [{gpa, size}], kind: 'MEMORY_KIND_SHARED',
    });
    return {
      missing: await outcome(call(clients.vm, 'getVm', {name: 'vms/none'})),
      taken: await outcome(create('errors')),
      field: await outcome(create('other', {vcpus: 65})),
      range: await outcome(set('18446744073709551615', '4096')),
      private: await outcome(
          call(clients.memory, 'readGuestMemory', {vm: 'errors', gpa: 0x400000, size: 16})),
      state: await outcome(call(clients.vm, 'startVm', {name: 'vms/errors'})
                               .then(() => call(clients.vm, 'startVm', {name: 'vms/errors'}))),
      cursor: await drain(clients.event.watchEvents({startCursor: argument})),
    };
  },

  // 64-bit numbers that a double cannot hold, or that come back as strings.
  async numbers() {
    const value = '13835058055282163713';  // 2^63 + 2^62 + 1
    const gpa = '4294967296';              // where memory beyond 3 GiB begins
    await create('numbers', {
      memoryBytes: '4294967296',
      program: {vcpus: [{steps: [
        {mapGpa: {gpa, pages: 1, kind: 'MEMORY_KIND_SHARED'}},
        {write: {gpa, alias: 'MEMORY_KIND_SHARED', value}},
      ]}]},
    });
    await call(clients.vm, 'startVm', {name: 'vms/numbers'});
    const {vm} = await call(clients.vm, 'waitVm', {name: 'vms/numbers'});
    const {data} =
        await call(clients.memory, 'readGuestMemory', {vm: 'numbers', gpa, size: 8});
    const {messages} = await drain(clients.memory.getMemoryAttributes({vm: 'numbers'}));
    return {
      exitCode: vm.exitCode,
      memoryBytes: vm.memoryBytes,
      value: data.readBigUInt64LE().toString(),
      runs: messages.flatMap(({runs}) => runs).map(({gpa, size, kind}) => [gpa, size, kind]),
    };
  },

  // A call ends when its time is over, and only it.
  async deadline() {
    await create('late');
    const begin = Date.now();
    const wait =
        await outcome(call(clients.vm, 'waitVm', {name: 'vms/late'}, {deadline: begin + 300}));
    const milliseconds = Date.now() - begin;
    return {wait, milliseconds, after: await outcome(call(clients.vm, 'getVm', {name: 'vms/late'}))};
  },

  // Streams and calls that their caller gives up.
  async cancellation() {
    await create('left');
    const watch = clients.event.watchEvents({startCursor: argument});
    const watched = await drain(watch, () => watch.cancel());
    const waited = await new Promise((resolve) => {
      const wait = clients.vm.waitVm({name: 'vms/left'}, (error) => resolve(explain(error)));
      setTimeout(() => wait.cancel(), 200);
    });
    return {watched: watched.code, events: watched.messages.length, waited: waited.code,
            after: await outcome(call(clients.vm, 'getVm', {name: 'vms/left'}))};
  },

  // A quiet call whose client asks every second whether the daemon is still there.
  async keepalive() {
    const asking = connect(socket, {'grpc.keepalive_time_ms': 1100,
                                    'grpc.keepalive_timeout_ms': 1000});
    await create('quiet');
    const wait = outcome(call(asking.vm, 'waitVm', {name: 'vms/quiet'}));
    await new Promise((resolve) => setTimeout(resolve, 7000));
    await call(clients.vm, 'startVm', {name: 'vms/quiet'});
    return {wait: await wait};
  },

  // The image in the file ARGUMENT, in chunks.
  async upload() {
    const image = fs.readFileSync(argument);
    const size = 4096;
    const chunks = [];
    for (let at = 0; at < image.length; at += size) {
      chunks.push({data: image.subarray(at, at + size), totalSize: at ? 0 : image.length});
    }
    return {first: await upload(chunks), again: await upload(chunks),
            cut: await outcome(upload(chunks.slice(0, -1)))};
  },
};

cases[name]().then((result) => {
  console.log(JSON.stringify(result));
  clients.close();
}, (error) => {
  console.error(error, explain(error));
  process.exit(70);
});
