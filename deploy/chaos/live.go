package main

import (
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"
)

// liveBrokers is how many real brokers there are: with a replica of everything on each, and two of them enough to write.
const liveBrokers = 3

// live is three Apache Kafka brokers, KRaft, on loopback, behind proxies. They outlive the runs: each run has topics of its own.
type live struct {
	dir       string
	classpath string
	ps        []*proxy
	plain     []string // addresses without proxies
	control   []string

	mu    sync.Mutex
	procs [liveBrokers]*exec.Cmd
	done  [liveBrokers]chan struct{}
}

// startLive starts the brokers, whose proxies listen on host, and waits until they answer.
func startLive(dir, host string) (*live, error) {
	l := &live{dir: filepath.Join(dir, "kafka")}
	if err := errors.Join(os.RemoveAll(l.dir), os.MkdirAll(l.dir, 0o700)); err != nil {
		return nil, err
	}
	root, err := moduleRoot()
	if err != nil {
		return nil, err
	}
	script := exec.Command(filepath.Join(root, "deploy/live/kafka/classpath.sh"), filepath.Join(l.dir, "maven.log"))
	script.Stderr = os.Stderr
	out, err := script.Output()
	if err != nil {
		return nil, fmt.Errorf("finding Apache Kafka (it needs Java and Maven): %w", err)
	}
	l.classpath = strings.TrimSpace(string(out))
	if err := l.ports(host); err != nil {
		return nil, err
	}
	for i := range liveBrokers {
		if err := l.prepare(i, filepath.Join(root, "deploy/live/kafka/log4j2.xml")); err != nil {
			return nil, err
		}
	}
	for i := range liveBrokers {
		if err := l.launch(i); err != nil {
			l.close()
			return nil, err
		}
	}
	return l, l.answer(60 * time.Second)
}

// moduleRoot is the folder of the module's go.mod.
func moduleRoot() (string, error) {
	out, err := exec.Command("go", "list", "-m", "-f", "{{.Dir}}", "github.com/ctigate/ctigate").Output()
	if err != nil {
		return "", fmt.Errorf("looking for the module's folder: %w", err)
	}
	return strings.TrimSpace(string(out)), nil
}

func (l *live) ports(host string) error {
	for i := range liveBrokers {
		var free [3]string
		for k := range free {
			var err error
			if free[k], err = freePort(loopback); err != nil {
				return err
			}
		}
		p, err := newProxy(host, fmt.Sprint("broker ", i), free[2])
		if err != nil {
			return err
		}
		l.ps, l.plain, l.control = append(l.ps, p), append(l.plain, free[0]), append(l.control, free[1])
	}
	return nil
}

// prepare writes broker i's settings and formats its folder. Nodes reach it by its proxy, others without.
func (l *live) prepare(i int, log4j string) error {
	var voters []string
	for k, c := range l.control {
		voters = append(voters, fmt.Sprintf("%d@%s", k+1, c))
	}
	p := l.ps[i]
	text := fmt.Sprintf(`process.roles=broker,controller
node.id=%d
controller.quorum.voters=%s
controller.listener.names=CONTROLLER
listeners=PLAIN://%s,CONTROLLER://%s,PROXIED://%s
advertised.listeners=PLAIN://%s,PROXIED://%s
listener.security.protocol.map=PLAIN:PLAINTEXT,CONTROLLER:PLAINTEXT,PROXIED:PLAINTEXT
inter.broker.listener.name=PLAIN
log.dirs=%s
default.replication.factor=3
min.insync.replicas=2
num.partitions=3
log.message.timestamp.type=LogAppendTime
auto.create.topics.enable=false
unclean.leader.election.enable=false
offsets.topic.replication.factor=3
offsets.topic.num.partitions=3
transaction.state.log.replication.factor=3
transaction.state.log.num.partitions=3
transaction.state.log.min.isr=2
share.coordinator.state.topic.replication.factor=3
share.coordinator.state.topic.min.isr=2
group.initial.rebalance.delay.ms=0
group.min.session.timeout.ms=1000
broker.session.timeout.ms=3000
broker.heartbeat.interval.ms=500
controller.quorum.election.timeout.ms=1000
controller.quorum.fetch.timeout.ms=2000
replica.lag.time.max.ms=5000
num.network.threads=2
num.io.threads=4
`, i+1, strings.Join(voters, ","), l.plain[i], l.control[i], p.target, l.plain[i], p.addr(), l.data(i))
	if err := os.WriteFile(l.file(i, "properties"), []byte(text), 0o600); err != nil {
		return err
	}
	out, err := l.java(log4j, "kafka.tools.StorageTool", "format", "-c", l.file(i, "properties"), "-t", "ctigatechaostests00001").CombinedOutput()
	if err != nil {
		return fmt.Errorf("formatting broker %d: %w: %s", i, err, out)
	}
	return nil
}

func (l *live) data(i int) string { return filepath.Join(l.dir, fmt.Sprint("data-", i)) }
func (l *live) file(i int, ext string) string {
	return filepath.Join(l.dir, fmt.Sprintf("broker-%d.%s", i, ext))
}

func (l *live) java(log4j string, args ...string) *exec.Cmd {
	return exec.Command("java", append([]string{"-Xms256m", "-Xmx640m", "-XX:+UseG1GC", "-XX:MaxGCPauseMillis=20", "-cp", l.classpath,
		"-Dlog4j2.configurationFile=" + log4j}, args...)...)
}

func (l *live) launch(i int) error {
	root, err := moduleRoot()
	if err != nil {
		return err
	}
	log, err := os.OpenFile(l.file(i, "log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer log.Close()
	cmd := l.java(filepath.Join(root, "deploy/live/kafka/log4j2.xml"), "kafka.Kafka", l.file(i, "properties"))
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Setpgid: true}
	if err := startKept(cmd); err != nil {
		return fmt.Errorf("starting broker %d: %w", i, err)
	}
	done := make(chan struct{})
	l.mu.Lock()
	l.procs[i], l.done[i] = cmd, done
	l.mu.Unlock()
	go func() {
		_ = cmd.Wait() // it ends when it is killed
		close(done)
	}()
	return nil
}

// answer waits until all brokers listen.
func (l *live) answer(within time.Duration) error {
	for end := time.Now().Add(within); ; time.Sleep(200 * ms) {
		up := 0
		for i := range liveBrokers {
			if l.listens(i) {
				up++
			}
		}
		if up == liveBrokers {
			return nil
		}
		if time.Now().After(end) {
			return fmt.Errorf("%d of %d brokers answer after %v: see %s", up, liveBrokers, within, l.dir)
		}
	}
}

func (l *live) listens(i int) bool {
	c, err := net.DialTimeout("tcp", l.plain[i], time.Second)
	if err != nil {
		return false
	}
	c.Close()
	return true
}

func (l *live) addrs() (all []string) {
	for _, p := range l.ps {
		all = append(all, p.addr())
	}
	return all
}

func (l *live) past(addr string) string {
	for i, p := range l.ps {
		if p.addr() == addr {
			return l.plain[i]
		}
	}
	return addr
}

func (l *live) proxies() []*proxy { return l.ps }

// stop kills a broker.
func (l *live) stop(i int) error {
	l.mu.Lock()
	cmd, done := l.procs[i], l.done[i]
	l.mu.Unlock()
	if cmd == nil {
		return nil
	}
	err := cmd.Process.Signal(syscall.SIGKILL)
	<-done
	l.ps[i].cut()
	return err
}

// start starts a broker and waits until it listens again.
func (l *live) start(i int) error {
	if err := l.launch(i); err != nil {
		return err
	}
	for range 300 {
		if l.listens(i) {
			return nil
		}
		time.Sleep(100 * ms)
	}
	return fmt.Errorf("broker %d does not listen 30 s after its start: see %s", i, l.file(i, "log"))
}

// restart kills all brokers and starts them again after d.
func (l *live) restart(d time.Duration) error {
	var errs []error
	for i := range liveBrokers {
		errs = append(errs, l.stop(i))
	}
	time.Sleep(d)
	for i := range liveBrokers {
		errs = append(errs, l.launch(i))
	}
	return errors.Join(append(errs, l.answer(60*time.Second))...)
}

func (l *live) fail(string, int) {}

// close ends nothing: the brokers are for the next run too. shutDown does.
func (l *live) close() {
	for _, p := range l.ps {
		p.release()
		p.up()
		p.set(func() { p.delay, p.mute, p.half = 0, false, false })
	}
}

func (l *live) shutDown() {
	for i := range liveBrokers {
		_ = l.stop(i) // it may be gone already
	}
	for _, p := range l.ps {
		p.close()
	}
}
