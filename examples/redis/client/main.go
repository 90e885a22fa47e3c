// SPDX-License-Identifier: Apache-2.0

// Command client talks to the Redis-protocol server with go-redis: single commands, a pipeline, and a large value.
package main

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"flag"
	"fmt"
	"log"

	"github.com/redis/go-redis/v9"

	"github.com/ismfs/ismfs/examples/internal/report"
	"github.com/ismfs/ismfs/libsmc"
)

func main() {
	server := flag.String("server", "127.0.0.1:6380", "the server's `address`")
	commands := flag.Int("pipeline", 1000, "`commands` in the pipeline")
	size := flag.Int("size", 10<<20, "`bytes` of the large value")
	r := report.Flags()
	flag.Parse()

	client := redis.NewClient(&redis.Options{
		Addr:   *server,
		Dialer: r.Watch(libsmc.DialContext), // the changed line: without it, go-redis dials TCP

		Protocol: 2, // which is what redcon speaks
	})
	defer client.Close()
	ctx := context.Background()
	for _, step := range []func() error{
		func() error { return ping(ctx, client) },
		func() error { return pipeline(ctx, client, *commands) },
		func() error { return large(ctx, client, *size) },
		r.Finish,
	} {
		if err := step(); err != nil {
			log.Fatal(err)
		}
	}
}

func ping(ctx context.Context, client *redis.Client) error {
	answer, err := client.Ping(ctx).Result()
	if err == nil {
		fmt.Println("PING:", answer)
	}
	return err
}

// pipeline sends commands without waiting for the answers in between.
func pipeline(ctx context.Context, client *redis.Client, commands int) error {
	answers, err := client.Pipelined(ctx, func(p redis.Pipeliner) error {
		for i := range commands / 2 {
			p.Set(ctx, fmt.Sprint("key", i), i, 0)
			p.Get(ctx, fmt.Sprint("key", i))
		}
		return nil
	})
	if err != nil {
		return err
	}
	for i := range commands / 2 {
		if got := answers[2*i+1].(*redis.StringCmd).Val(); got != fmt.Sprint(i) {
			return fmt.Errorf("key%d is %q", i, got)
		}
	}
	fmt.Printf("pipeline: %d answers\n", len(answers))
	return nil
}

// large sets a large value and gets it back.
func large(ctx context.Context, client *redis.Client, size int) error {
	value := make([]byte, size)
	rand.Read(value)
	if err := client.Set(ctx, "large", value, 0).Err(); err != nil {
		return err
	}
	back, err := client.Get(ctx, "large").Bytes()
	if err != nil {
		return err
	}
	if !bytes.Equal(back, value) {
		return errors.New("the large value is not what was set")
	}
	fmt.Printf("GET: %d bytes, as they were set\n", len(back))
	return nil
}
