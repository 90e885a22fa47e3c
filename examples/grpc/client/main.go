// SPDX-License-Identifier: Apache-2.0

// Command client talks to the gRPC server: one call, and then several streams at once, all on one connection.
package main

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"flag"
	"fmt"
	"io"
	"log"
	"net"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/ismfs/ismfs/examples/grpc/echo"
	"github.com/ismfs/ismfs/examples/internal/report"
	"github.com/ismfs/ismfs/libsmc"
)

func main() {
	server := flag.String("server", "127.0.0.1:50051", "the server's `address`")
	streams := flag.Int("streams", 8, "streams at once")
	messages := flag.Int("messages", 4, "messages on each stream, both ways")
	size := flag.Int("size", 1<<20, "`bytes` of a message")
	r := report.Flags()
	flag.Parse()

	dial := r.Watch(libsmc.DialContext)
	conn, err := grpc.NewClient("passthrough:///"+*server, // so that libsmc sees the address as it is given
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(func(ctx context.Context, address string) (net.Conn, error) { return dial(ctx, "tcp", address) }), // the changed line: without it, gRPC dials TCP
	)
	if err != nil {
		log.Fatal(err)
	}
	defer conn.Close()
	client := echo.NewEchoClient(conn)
	if err := say(client, "hello"); err != nil {
		log.Fatal(err)
	}
	if err := talkAll(client, *streams, *messages, *size); err != nil {
		log.Fatal(err)
	}
	if err := r.Finish(); err != nil {
		log.Fatal(err)
	}
}

// say makes one call.
func say(client echo.EchoClient, text string) error {
	m, err := client.Say(context.Background(), &echo.Message{Body: []byte(text)})
	if err != nil {
		return err
	}
	fmt.Printf("Say: %s\n", m.GetBody())
	return nil
}

// talkAll talks on several streams at once.
func talkAll(client echo.EchoClient, streams, messages, size int) error {
	results := make(chan error, streams)
	for range streams {
		go func() { results <- talk(client, messages, size) }()
	}
	var err error
	for range streams {
		err = errors.Join(err, <-results)
	}
	if err == nil {
		fmt.Printf("Talk: %d streams, %d messages of %d bytes each came back\n", streams, messages, size)
	}
	return err
}

// talk sends messages on one stream, and compares what comes back.
func talk(client echo.EchoClient, messages, size int) error {
	stream, err := client.Talk(context.Background())
	if err != nil {
		return err
	}
	body := make([]byte, size)
	for range messages {
		rand.Read(body)
		if err := stream.Send(&echo.Message{Body: body}); err != nil {
			return err
		}
		m, err := stream.Recv()
		if err != nil {
			return err
		}
		if !bytes.Equal(m.GetBody(), body) {
			return errors.New("the server has sent back another message")
		}
	}
	if err := stream.CloseSend(); err != nil {
		return err
	}
	if _, err := stream.Recv(); err != io.EOF {
		return fmt.Errorf("at the stream's end: %w", err)
	}
	return nil
}
