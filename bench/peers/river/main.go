// River with one job per trade: calls the wallet, updates the trade row.
//
//	river setup              create River's tables
//	river plain|complete-tx  work until SIGTERM
//
// plain: the trade row is updated by a statement of its own, and River completes
// jobs in batches.  complete-tx: trade row and job in one transaction, by
// river.JobCompleteTx (https://riverqueue.com/docs/transactional-job-completion),
// so that a trade is settled once and for all.
//
// Settings: many more workers than cores, as jobs wait for the wallet and for
// flushes; the shortest fetch cooldown, as "throughput is limited by this value"
// (documentation of river.Config); the poll interval as short as those of the other
// peers, so that jobs need no NOTIFY.  The numbers are the best of those tried.
package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/signal"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/riverqueue/river"
	"github.com/riverqueue/river/riverdriver/riverpgxv5"
	"github.com/riverqueue/river/rivermigrate"
)

const (
	fetchCooldown = 5 * time.Millisecond
	pollInterval  = 5 * time.Millisecond
)

type settleArgs struct {
	TradeID       string `json:"trade_id"`
	BuyerID       string `json:"buyer_id"`
	SellerID      string `json:"seller_id"`
	BuyerOrderID  string `json:"buyer_order_id"`
	SellerOrderID string `json:"seller_order_id"`
	BaseCurrency  string `json:"base_currency"`
	QuoteCurrency string `json:"quote_currency"`
	BaseAmount    string `json:"base_amount"`
	QuoteAmount   string `json:"quote_amount"`
	Price         string `json:"price"`
	BuyerFee      string `json:"buyer_fee"`
	SellerFee     string `json:"seller_fee"`
}

func (settleArgs) Kind() string { return "settle" }

type wallet struct {
	url    string
	client *http.Client
}

func (w *wallet) settle(ctx context.Context, args *settleArgs) (string, error) {
	body, err := json.Marshal(args)
	if err != nil {
		return "", err
	}
	id, err := strconv.ParseInt(args.TradeID, 10, 64)
	if err != nil {
		return "", err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, w.url, bytes.NewReader(body))
	if err != nil {
		return "", err
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("Idempotency-Key", fmt.Sprintf("00000000-0000-4000-8000-%012x", id))
	req.Header.Set("Settlement-Epoch", "1")
	resp, err := w.client.Do(req)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(resp.Body)
	if err != nil {
		return "", err
	}
	var reply struct {
		Success      bool   `json:"success"`
		SettlementID string `json:"settlement_id"`
	}
	if err := json.Unmarshal(answer, &reply); err != nil {
		return "", err
	}
	if resp.StatusCode != http.StatusOK || !reply.Success {
		return "", errors.New("the wallet refused: " + resp.Status)
	}
	return reply.SettlementID, nil
}

type settleWorker struct {
	river.WorkerDefaults[settleArgs]
	wallet     *wallet
	pool       *pgxpool.Pool
	update     string
	completeTx bool
}

func (w *settleWorker) Work(ctx context.Context, job *river.Job[settleArgs]) error {
	settlementID, err := w.wallet.settle(ctx, &job.Args)
	if err != nil {
		return err
	}
	if !w.completeTx {
		_, err = w.pool.Exec(ctx, w.update, job.Args.TradeID, settlementID)
		return err
	}
	return pgx.BeginFunc(ctx, w.pool, func(tx pgx.Tx) error {
		if _, err := tx.Exec(ctx, w.update, job.Args.TradeID, settlementID); err != nil {
			return err
		}
		_, err := river.JobCompleteTx[*riverpgxv5.Driver](ctx, tx, job)
		return err
	})
}

func number(name string, otherwise int) int {
	if n, err := strconv.Atoi(os.Getenv(name)); err == nil {
		return n
	}
	return otherwise
}

func connect(ctx context.Context) (*pgxpool.Pool, error) {
	config, err := pgxpool.ParseConfig("")
	if err != nil {
		return nil, err
	}
	config.MaxConns = int32(number("SESSIONS", 30))
	config.MinConns = config.MaxConns
	return pgxpool.NewWithConfig(ctx, config)
}

func setup(ctx context.Context, pool *pgxpool.Pool) error {
	migrator, err := rivermigrate.New(riverpgxv5.New(pool), nil)
	if err != nil {
		return err
	}
	_, err = migrator.Migrate(ctx, rivermigrate.DirectionUp, nil)
	return err
}

func work(ctx context.Context, pool *pgxpool.Pool, completeTx bool) error {
	jobs := number("JOBS", 200)
	workers := river.NewWorkers()
	river.AddWorker(workers, &settleWorker{
		pool:       pool,
		completeTx: completeTx,
		update: "UPDATE " + os.Getenv("TRADES") + " SET settlement_status = 'SETTLED', settlement_id = $2, " +
			"settled_at = clock_timestamp(), settlement_attempts = 1 WHERE trade_id = $1::text::bigint",
		wallet: &wallet{
			url: os.Getenv("WALLET_URL") + "/api/wallets/settle",
			client: &http.Client{Transport: &http.Transport{
				MaxConnsPerHost: number("CONCURRENCY", 64), MaxIdleConnsPerHost: number("CONCURRENCY", 64),
			}},
		},
	})
	client, err := river.NewClient(riverpgxv5.New(pool), &river.Config{
		Queues:            map[string]river.QueueConfig{river.QueueDefault: {MaxWorkers: jobs}},
		Workers:           workers,
		FetchCooldown:     fetchCooldown,
		FetchPollInterval: pollInterval,
	})
	if err != nil {
		return err
	}
	if err := client.Start(ctx); err != nil {
		return err
	}
	<-ctx.Done()
	return nil
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	pool, err := connect(ctx)
	if err == nil {
		switch command := strings.Join(os.Args[1:], " "); command {
		case "setup":
			err = setup(ctx, pool)
		case "plain", "complete-tx":
			err = work(ctx, pool, command == "complete-tx")
		default:
			err = errors.New("usage: river setup|plain|complete-tx")
		}
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}
