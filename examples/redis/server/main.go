// SPDX-License-Identifier: Apache-2.0

// Command server speaks the Redis protocol: PING, SET, GET and DEL, in memory.
package main

import (
	"context"
	"flag"
	"fmt"
	"log"
	"os"
	"os/signal"
	"strings"
	"sync"
	"syscall"

	"github.com/tidwall/redcon"

	"github.com/ismfs/ismfs/libsmc"
)

func main() {
	address := flag.String("listen", "127.0.0.1:6380", "`address` to listen on")
	flag.Parse()
	if err := run(*address); err != nil {
		log.Fatal(err)
	}
}

func run(address string) error {
	l, err := libsmc.Listen("tcp", address) // the changed line: it was net.Listen
	if err != nil {
		return err
	}
	fmt.Println("listening on", l.Addr())

	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	context.AfterFunc(ctx, func() { l.Close() })
	s := &store{values: make(map[string][]byte)}
	err = redcon.Serve(l, s.handle, nil, nil)
	if ctx.Err() != nil {
		return nil // as was wanted
	}
	return err
}

// A store is what has been set.
type store struct {
	mu     sync.Mutex
	values map[string][]byte
}

func (s *store) handle(c redcon.Conn, cmd redcon.Command) {
	name, args := strings.ToLower(string(cmd.Args[0])), cmd.Args[1:]
	switch {
	case name == "ping" && len(args) == 0:
		c.WriteString("PONG")
	case name == "set" && len(args) == 2:
		s.set(string(args[0]), args[1])
		c.WriteString("OK")
	case name == "get" && len(args) == 1:
		if v, ok := s.get(string(args[0])); ok {
			c.WriteBulk(v)
		} else {
			c.WriteNull()
		}
	case name == "del" && len(args) == 1:
		c.WriteInt(s.del(string(args[0])))
	case name == "quit":
		c.WriteString("OK")
		c.Close()
	default:
		c.WriteError("ERR unknown command, or the wrong number of arguments, for '" + name + "'")
	}
}

func (s *store) set(key string, value []byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.values[key] = append([]byte(nil), value...) // redcon uses the command's memory again
}

func (s *store) get(key string) ([]byte, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	v, ok := s.values[key]
	return v, ok
}

func (s *store) del(key string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, ok := s.values[key]; !ok {
		return 0
	}
	delete(s.values, key)
	return 1
}
