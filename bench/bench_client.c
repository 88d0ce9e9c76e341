/* bench_client PORT CONNECTIONS RATE SECONDS REQUEST [LOG]: sends the bytes of the file REQUEST (a whole HTTP request with a keep-alive answer) to
 * 127.0.0.1 RATE times a second, evenly spaced whatever the answers do (wrk waits for them, h2load sends in bursts); RATE 0: as fast as answers come.
 * A request whose time has come while every connection is busy waits in the client, and its time counts from then. Prints
 *   requests a second, answers with 200, with 503, others, then p50 and p99 in microseconds of the 200s and of the 503s
 * and appends one line for each answer to LOG: status, microseconds. Linux. */
#include <arpa/inet.h>
#include <errno.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/timerfd.h>
#include <netinet/tcp.h>
#include <time.h>
#include <unistd.h>

#include "base/cpu.h"

enum { ANSWER_MOST = 1 << 16, EVENTS = 256 };

typedef struct connection { int fd; uint64_t due; size_t sent, got; char *answer; } connection;
typedef struct times { uint32_t *us; size_t count, capacity; } times;

static char *request;
static size_t request_size;
static times good, refused, others;
static FILE *record;

static void die(const char *what) {
  perror(what);
  exit(1);
}

static void note(times *t, uint64_t us) {
  if (t->count == t->capacity) {
    t->capacity = t->capacity ? 2 * t->capacity : 1024;
    t->us = realloc(t->us, t->capacity * sizeof *t->us);
    if (!t->us) die("realloc");
  }
  t->us[t->count++] = us > UINT32_MAX ? UINT32_MAX : (uint32_t)us;
}

static int ascending(const void *a, const void *b) {
  uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
  return (x > y) - (x < y);
}

static uint32_t percentile(times *t, double p) {
  if (t->count == 0) return 0;
  qsort(t->us, t->count, sizeof *t->us, ascending);
  size_t i = (size_t)((double)t->count * p);
  return t->us[i < t->count ? i : t->count - 1];
}

static void connect_to(connection *c, const struct sockaddr_in *address, int poll) {
  int on = 1;
  struct epoll_event event = { .events = EPOLLIN | EPOLLOUT | EPOLLET, .data.ptr = c };
  if (c->fd >= 0) close(c->fd);
  c->fd = socket(AF_INET, SOCK_STREAM, 0);
  if (c->fd < 0 || connect(c->fd, (const struct sockaddr *)address, sizeof *address) != 0) die("connect");
  setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
  if (epoll_ctl(poll, EPOLL_CTL_ADD, c->fd, &event) != 0) die("epoll_ctl");
  c->due = 0;
}

/* false: the connection has ended */
static bool push(connection *c) {
  while (c->due && c->sent < request_size) {
    ssize_t n = send(c->fd, request + c->sent, request_size - c->sent, MSG_DONTWAIT | MSG_NOSIGNAL);
    if (n < 0) return errno == EAGAIN || errno == EINTR;
    c->sent += (size_t)n;
  }
  return true;
}

/* 1: the answer is complete, 0: not yet, -1: the connection has ended */
static int pull(connection *c, bool *last) {
  for (;;) {
    if (c->got > 0) {
      c->answer[c->got] = '\0';
      const char *end = strstr(c->answer, "\r\n\r\n"), *length = end ? strstr(c->answer, "content-length: ") : NULL;
      if (end && (size_t)(end - c->answer) + 4 + (length ? strtoul(length + 16, NULL, 10) : 0) <= c->got) {
        const char *closing = strstr(c->answer, "connection: close");
        *last = closing && closing < end;
        return 1;
      }
    }
    ssize_t n = recv(c->fd, c->answer + c->got, ANSWER_MOST - c->got, MSG_DONTWAIT);
    if (n < 0) return errno == EAGAIN || errno == EINTR ? 0 : -1;
    if (n == 0) return -1;
    c->got += (size_t)n;
  }
}

static void begin(connection *c, uint64_t due) {
  c->due = due;
  c->sent = c->got = 0;
}

static void finish(connection *c, uint64_t now, int status) {
  uint64_t us = (now - c->due) / 1000;
  note(status == 200 ? &good : status == 503 ? &refused : &others, us);
  if (record) fprintf(record, "%d %llu\n", status, (unsigned long long)us);
  c->due = 0;
}

int main(int argc, char **argv) {
  struct sockaddr_in address = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
  FILE *file = argc < 6 ? NULL : fopen(argv[5], "rb");
  if (!file) die("bench_client PORT CONNECTIONS RATE SECONDS REQUEST [LOG]");
  address.sin_port = htons((uint16_t)atoi(argv[1]));
  size_t n = strtoul(argv[2], NULL, 10), idle = 0;
  double rate = atof(argv[3]), seconds = atof(argv[4]);
  if (argc > 6 && !(record = fopen(argv[6], "a"))) die(argv[6]);
  fseek(file, 0, SEEK_END);
  request_size = (size_t)ftell(file);
  rewind(file);
  request = malloc(request_size);
  connection *all = calloc(n, sizeof *all), **free_ones = calloc(n, sizeof *free_ones);
  if (!request || !all || !free_ones || n == 0 || fread(request, 1, request_size, file) != request_size) die("request");
  fclose(file);
  int poll = epoll_create1(0), timer = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK);
  struct epoll_event tick = { .events = EPOLLIN, .data.ptr = NULL }, events[EVENTS];
  if (poll < 0 || timer < 0 || epoll_ctl(poll, EPOLL_CTL_ADD, timer, &tick) != 0) die("epoll");
  for (size_t i = 0; i < n; i++) {
    all[i].fd = -1;
    all[i].answer = malloc(ANSWER_MOST + 1);
    if (!all[i].answer) die("malloc");
    connect_to(&all[i], &address, poll);
    free_ones[idle++] = &all[i];
  }
  uint64_t start = ml_clock_ns(), stop = start + (uint64_t)(seconds * 1e9), next = start, step = rate > 0 ? (uint64_t)(1e9 / rate) : 0;
  uint64_t give_up = stop + 5000000000u, now = start;
  while (now < stop || (idle < n && now < give_up)) {
    now = ml_clock_ns();
    while (idle > 0 && now < stop && next <= now && next < stop) {
      connection *c = free_ones[--idle];
      begin(c, step ? next : now);
      next += step;
      if (!push(c)) {
        finish(c, now, 0);
        connect_to(c, &address, poll);
        free_ones[idle++] = c;
      }
    }
    uint64_t wake = now >= stop ? give_up : idle > 0 && next < stop ? next : stop;
    struct itimerspec at = { .it_value = { .tv_sec = (time_t)(wake / 1000000000u), .tv_nsec = (long)(wake % 1000000000u) } };
    timerfd_settime(timer, TFD_TIMER_ABSTIME, &at, NULL);
    int ready = epoll_wait(poll, events, EVENTS, -1);
    now = ml_clock_ns();
    for (int i = 0; i < ready; i++) {
      connection *c = events[i].data.ptr;
      bool last = false;
      if (!c || !c->due) continue;
      int state = push(c) ? pull(c, &last) : -1;
      if (state == 0) continue;
      finish(c, now, state > 0 ? atoi(c->answer + 9) : 0);
      if (state < 0 || last) connect_to(c, &address, poll);
      free_ones[idle++] = c;
    }
  }
  double took = (double)(stop - start) * 1e-9;
  printf("%.0f %zu %zu %zu %u %u %u %u\n", (double)(good.count + refused.count + others.count) / took, good.count, refused.count,
         others.count + (n - idle), percentile(&good, 0.5), percentile(&good, 0.99), percentile(&refused, 0.5), percentile(&refused, 0.99));
  return 0;
}
