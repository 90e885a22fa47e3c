// SPDX-License-Identifier: Apache-2.0

// Command client puts a file of random bytes on the HTTP server, gets it back and compares.
package main

import (
	"bytes"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"flag"
	"fmt"
	"io"
	"log"
	"net/http"

	"github.com/ismfs/ismfs/examples/internal/report"
	"github.com/ismfs/ismfs/libsmc"
)

func main() {
	url := flag.String("url", "http://127.0.0.1:8080", "the server's `URL`")
	size := flag.Int("size", 10<<20, "`bytes` of the file")
	rounds := flag.Int("rounds", 3, "`number` of rounds; all requests use one connection")
	r := report.Flags()
	flag.Parse()

	client := &http.Client{Transport: &http.Transport{
		DialContext: r.Watch(libsmc.DialContext), // the changed line: without it, package http dials TCP
	}}
	for i := range *rounds {
		if err := exchange(client, fmt.Sprintf("%s/file%d", *url, i), *size); err != nil {
			log.Fatal(err)
		}
	}
	if err := r.Finish(); err != nil {
		log.Fatal(err)
	}
	client.CloseIdleConnections()
}

// exchange puts a file and gets it back.
func exchange(client *http.Client, url string, size int) error {
	file := make([]byte, size)
	rand.Read(file)
	put, err := http.NewRequest(http.MethodPut, url, bytes.NewReader(file))
	if err != nil {
		return err
	}
	if _, err := do(client, put, http.StatusCreated); err != nil {
		return err
	}
	get, err := http.NewRequest(http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	back, err := do(client, get, http.StatusOK)
	if err != nil {
		return err
	}
	sent, got := sha256.Sum256(file), sha256.Sum256(back)
	fmt.Printf("GET %s: %d bytes, SHA-256 %x\n", url, len(back), got)
	if got != sent {
		return errors.New("that is not what was put there")
	}
	return nil
}

// do makes a request and reads the answer to its end, which frees the connection for the next one.
func do(client *http.Client, r *http.Request, want int) ([]byte, error) {
	answer, err := client.Do(r)
	if err != nil {
		return nil, err
	}
	defer answer.Body.Close()
	body, err := io.ReadAll(answer.Body)
	if err == nil && answer.StatusCode != want {
		err = fmt.Errorf("%s %s: %s: %s", r.Method, r.URL, answer.Status, body)
	}
	return body, err
}
