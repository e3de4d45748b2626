package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	lift "github.com/liftbridge-io/go-liftbridge/v2"
)

const (
	partitions = 4
	group      = "workers"
)

// delivery is what a consumer's handler got.
type delivery struct {
	consumer  string
	partition int32
	offset    int64
	err       error
}

// consumption is a group that reads the stream "work", and what it must keep to: nothing is skipped.
type consumption struct {
	client    lift.Client
	publisher lift.Client
	addresses []string
	seen      chan delivery
	processed [partitions]int64
	owner     [partitions]string
}

// consumers shares partitions between consumers that come and go; with more than one broker, one of them is killed by
// the test as soon as "consuming" is printed.
func consumers(addresses []string) {
	ctx, cancel := context.WithTimeout(context.Background(), 60*time.Second)
	defer cancel()
	client, err := lift.Connect(addresses)
	check("connect", err)
	defer client.Close()
	check("create", client.CreateStream(ctx, "work.subject", "work", lift.Partitions(partitions),
		lift.ReplicationFactor(int32(len(addresses)))))
	work := &consumption{client: client, publisher: client, addresses: addresses, seen: make(chan delivery, 10000)}
	one := work.start(ctx, "one")
	work.until(ctx, "one has all", func() bool { return work.owners() == "one,one,one,one" })
	if len(addresses) > 1 {
		survive(ctx, work)
	}
	two := work.start(ctx, "two")
	work.until(ctx, "both have some", func() bool {
		return strings.Count(work.owners(), "one") == 2 && strings.Count(work.owners(), "two") == 2
	})
	stop("close one", one)
	work.until(ctx, "two has all", func() bool { return work.owners() == "two,two,two,two" })
	stop("close two", two)
	for partition := range work.owner {
		work.owner[partition] = ""
	}
	three := work.start(ctx, "three")
	work.until(ctx, "three goes on", func() bool { return work.owners() == "three,three,three,three" })
	stop("close three", three)
	fmt.Println("ok")
}

// survive waits until every partition was read anew after the kill.
func survive(ctx context.Context, work *consumption) {
	fmt.Println("consuming")
	for partition := range work.owner {
		work.owner[partition] = ""
	}
	var killed string
	_, err := fmt.Scanln(&killed)
	check("wait for the kill", err)
	work.until(ctx, "one has all again", func() bool { return work.owners() == "one,one,one,one" })
}

func (w *consumption) start(ctx context.Context, name string) *lift.Consumer {
	often := func(time.Duration) time.Duration { return 200 * time.Millisecond }
	consumer, err := w.client.CreateConsumer(group, lift.ConsumerID(name), lift.AutoOffsetEarliest(),
		lift.AutoCheckpoint(200*time.Millisecond), lift.FetchAssignmentsInterval(often))
	check("create consumer", err)
	check("consume", consumer.Subscribe(ctx, []string{"work"}, func(m *lift.Message, err error) {
		if err != nil {
			w.seen <- delivery{consumer: name, err: err}
			return
		}
		w.seen <- delivery{name, m.Partition(), m.Offset(), nil}
	}))
	return consumer
}

// stop closes a consumer. Close leaves the group first and then may never return: its loop doesn't look whether the consumer
// is closed while its calls fail, and they do once their context is cancelled.
func stop(what string, consumer *lift.Consumer) {
	closed := make(chan error, 1)
	go func() { closed <- consumer.Close() }()
	select {
	case err := <-closed:
		check(what, err)
	case <-time.After(3 * time.Second):
	}
}

func (w *consumption) owners() string { return strings.Join(w.owner[:], ",") }

// until publishes and takes in what is delivered until the condition holds.
func (w *consumption) until(ctx context.Context, what string, reached func() bool) {
	for !reached() {
		for partition := int32(0); partition < partitions; partition++ {
			w.publish(ctx, partition)
		}
		for drained := false; !drained; {
			select {
			case one := <-w.seen:
				w.take(one)
			case <-ctx.Done():
				check(fmt.Sprintf("%s (now %s)", what, w.owners()), ctx.Err())
			case <-time.After(50 * time.Millisecond):
				drained = true
			}
		}
	}
}

// publish takes another client after a failure, because one goes on publishing to a broker that is gone.
func (w *consumption) publish(ctx context.Context, partition int32) {
	short, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	_, err := w.publisher.Publish(short, "work", []byte("x"), lift.ToPartition(partition), lift.AckPolicyAll())
	for _, address := range w.addresses {
		if err == nil {
			return
		}
		var another lift.Client
		if another, err = lift.Connect([]string{address}); err == nil {
			w.publisher = another
		}
	}
}

func (w *consumption) take(one delivery) {
	if one.err != nil {
		displaced := errors.Is(one.err, io.EOF) || strings.Contains(one.err.Error(), "not currently assigned")
		// Between a kill and the next leader, subscribing fails with what gRPC says.
		away := strings.Contains(one.err.Error(), "Unavailable") || strings.Contains(one.err.Error(), "leader")
		if !displaced && !away {
			check(one.consumer, one.err)
		}
		return
	}
	expect(fmt.Sprintf("offset %d of partition %d after %d", one.offset, one.partition, w.processed[one.partition]),
		one.offset <= w.processed[one.partition])
	w.processed[one.partition] = max(w.processed[one.partition], one.offset+1)
	w.owner[one.partition] = one.consumer
}
