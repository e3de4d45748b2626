// Command go_client uses a broker as any application with go-liftbridge does, and fails at the first surprise.
package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	lift "github.com/liftbridge-io/go-liftbridge/v2"
)

const messages = 200

func check(what string, err error) {
	if err != nil {
		fmt.Fprintf(os.Stderr, "%s: %v\n", what, err)
		os.Exit(1)
	}
}

func expect(what string, ok bool) {
	if !ok {
		check(what, errors.New("not as expected"))
	}
}

func main() {
	if os.Args[1] == "consumers" {
		consumers(os.Args[2:])
		return
	}
	if os.Args[1] == "secure" {
		secure(os.Args[2], os.Args[3], os.Args[4], os.Args[5])
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	client, err := lift.Connect([]string{os.Args[1]})
	check("connect", err)
	defer client.Close()

	check("create", client.CreateStream(ctx, "go.subject", "go-stream", lift.Partitions(2)))
	err = client.CreateStream(ctx, "go.subject", "go-stream")
	expect("create again", errors.Is(err, lift.ErrStreamExists))

	publish(ctx, client)
	subscribe(ctx, client)
	cursors(ctx, client)

	metadata, err := client.FetchMetadata(ctx)
	check("metadata", err)
	expect("brokers", len(metadata.Brokers()) == 1)
	expect("stream in metadata", metadata.GetStream("go-stream") != nil)
	partition, err := client.FetchPartitionMetadata(ctx, "go-stream", 0)
	check("partition metadata", err)
	expect("newest offset", partition.NewestOffset() == messages)

	err = client.Subscribe(ctx, "nowhere", func(*lift.Message, error) {})
	expect("subscribe to nowhere", err != nil)
	check("delete", client.DeleteStream(ctx, "go-stream"))
	expect("delete again", errors.Is(client.DeleteStream(ctx, "go-stream"), lift.ErrNoSuchStream))
	fmt.Println("ok")
}

func publish(ctx context.Context, client lift.Client) {
	ack, err := client.Publish(ctx, "go-stream", []byte("0"), lift.Key([]byte("key")),
		lift.Header("name", []byte("value")), lift.AckPolicyAll(), lift.CorrelationID("mine"))
	check("publish", err)
	expect("ack", ack.Offset() == 0 && ack.CorrelationID() == "mine" && ack.Stream() == "go-stream")
	acked := make(chan error, messages)
	for i := 1; i <= messages; i++ {
		want := int64(i)
		check("publish async", client.PublishAsync(ctx, "go-stream", []byte(fmt.Sprint(i)), func(ack *lift.Ack, err error) {
			if err == nil && ack.Offset() != want {
				err = fmt.Errorf("offset %d, want %d", ack.Offset(), want)
			}
			acked <- err
		}))
	}
	for i := 1; i <= messages; i++ {
		check("async ack", <-acked)
	}
	_, err = client.Publish(ctx, "go-stream", []byte("x"), lift.ToPartition(9))
	expect("publish to no partition", errors.Is(err, lift.ErrNoSuchPartition))
}

func subscribe(ctx context.Context, client lift.Client) {
	for _, start := range []int64{0, 150} {
		received := make(chan error, messages+1)
		next := start
		sub, stop := context.WithCancel(ctx)
		check("subscribe", client.Subscribe(sub, "go-stream", func(m *lift.Message, err error) {
			if err == nil && (m.Offset() != next || !bytes.Equal(m.Value(), []byte(fmt.Sprint(next)))) {
				err = fmt.Errorf("offset %d with %q, want %d", m.Offset(), m.Value(), next)
			}
			next++
			received <- err
		}, lift.StartAtOffset(start)))
		for i := start; i <= messages; i++ {
			select {
			case err := <-received:
				check("message", err)
			case <-ctx.Done():
				check("subscribe", ctx.Err())
			}
		}
		stop()
	}
}

func cursors(ctx context.Context, client lift.Client) {
	offset, err := client.FetchCursor(ctx, "new", "go-stream", 0)
	check("fetch cursor", err)
	expect("cursor that was never set", offset == -1)
	for i := int64(0); i < 20; i++ {
		id := fmt.Sprintf("cursor-%d", i%7)
		check("set cursor", client.SetCursor(ctx, id, "go-stream", 1, i))
		offset, err = client.FetchCursor(ctx, id, "go-stream", 1)
		check("fetch cursor", err)
		expect("cursor", offset == i)
	}
}
