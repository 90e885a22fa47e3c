// SPDX-License-Identifier: Apache-2.0

// Command server is an HTTP server that keeps files in memory: PUT /name stores one, GET /name sends it.
package main

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log"
	"net/http"
	"os"
	"os/signal"
	"sync"
	"syscall"
	"time"

	"github.com/ismfs/ismfs/libsmc"
)

func main() {
	address := flag.String("listen", "127.0.0.1:8080", "`address` to listen on")
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

	server := &http.Server{Handler: newStore()}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	shut := make(chan error, 1)
	go func() {
		<-ctx.Done()
		patience, cancel := context.WithTimeout(context.Background(), 30*time.Second)
		defer cancel()
		shut <- server.Shutdown(patience) // lets the requests that run finish
	}()
	if err := server.Serve(l); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return <-shut
}

// A store is what has been put.
type store struct {
	mu    sync.Mutex
	files map[string][]byte
}

func newStore() http.Handler {
	s := &store{files: make(map[string][]byte)}
	mux := http.NewServeMux()
	mux.HandleFunc("PUT /{name}", s.put)
	mux.HandleFunc("GET /{name}", s.get)
	return mux
}

func (s *store) put(w http.ResponseWriter, r *http.Request) {
	const most = 1 << 30
	b, err := io.ReadAll(http.MaxBytesReader(w, r.Body, most))
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	s.mu.Lock()
	s.files[r.PathValue("name")] = b
	s.mu.Unlock()
	w.WriteHeader(http.StatusCreated)
}

func (s *store) get(w http.ResponseWriter, r *http.Request) {
	name := r.PathValue("name")
	s.mu.Lock()
	b, ok := s.files[name]
	s.mu.Unlock()
	if !ok {
		http.NotFound(w, r)
		return
	}
	http.ServeContent(w, r, name, time.Time{}, bytes.NewReader(b))
}
