// An echo server with io.Copy, a goroutine a connection: echo PORT [PEM].
// On Linux io.Copy between two TCP connections is splice(2) through a pipe.  With PEM, a
// certificate and its key, it speaks TLS, and copies.
package main

import (
	"crypto/tls"
	"io"
	"log"
	"net"
	"os"
)

func main() {
	listener, err := net.Listen("tcp4", "127.0.0.1:"+os.Args[1])
	if err != nil {
		log.Fatal(err)
	}
	if len(os.Args) > 2 {
		certificate, err := tls.LoadX509KeyPair(os.Args[2], os.Args[2])
		if err != nil {
			log.Fatal(err)
		}
		config := &tls.Config{Certificates: []tls.Certificate{certificate}}
		listener = tls.NewListener(listener, config)
	}
	for {
		connection, err := listener.Accept()
		if err != nil {
			log.Fatal(err)
		}
		go func() {
			defer connection.Close()
			io.Copy(connection, connection)
		}()
	}
}
