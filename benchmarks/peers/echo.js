// An echo server with Node's net, piped as its documentation has it: node echo.js PORT.
"use strict";
const net = require("node:net");

const server = net.createServer((socket) => {
  socket.on("error", () => socket.destroy());
  socket.pipe(socket);
});
server.listen({ port: Number(process.argv[2]), host: "127.0.0.1", backlog: 4096 });
