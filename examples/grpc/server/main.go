// SPDX-License-Identifier: Apache-2.0

// Command server is a gRPC server that sends back what it gets.
package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"log"
	"os"
	"os/signal"
	"syscall"

	"google.golang.org/grpc"

	"github.com/ismfs/ismfs/examples/grpc/echo"
	"github.com/ismfs/ismfs/libsmc"
)

func main() {
	address := flag.String("listen", "127.0.0.1:50051", "`address` to listen on")
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

	s := grpc.NewServer()
	echo.RegisterEchoServer(s, server{})
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	go func() {
		<-ctx.Done()
		s.GracefulStop()
	}()
	return s.Serve(l)
}

type server struct{ echo.UnimplementedEchoServer }

func (server) Say(_ context.Context, m *echo.Message) (*echo.Message, error) { return m, nil }

func (server) Talk(stream grpc.BidiStreamingServer[echo.Message, echo.Message]) error {
	for {
		m, err := stream.Recv()
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
		if err := stream.Send(m); err != nil {
			return err
		}
	}
}
