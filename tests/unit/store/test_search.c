#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include <cmocka.h>

#include "store/search.h"

static void assert_span(struct span s, int64_t first_event, int64_t event, int64_t subscription) {
    assert_int_equal(s.first_event, first_event);
    assert_int_equal(s.event, event);
    assert_int_equal(s.subscription, subscription);
}

static void test_a_span_is_what_every_filter_leaves(void **state) {
    (void)state;
    const int64_t last = (int64_t)ID_KEY_MAX;
    assert_span(span_of(&(struct delivery_query){0}), 0, last, SPAN_ALL_OF_EVENT);
    assert_span(span_of(&(struct delivery_query){.since = 5, .until = 9}), 5 << 12, (9 << 12) - 1,
                SPAN_ALL_OF_EVENT);
    /* The cursor ends it within an event, or, past the event's first delivery, with the event before. */
    assert_span(span_of(&(struct delivery_query){.before_event_key = 70, .before_subscription_no = 3}), 0, 70,
                3);
    assert_span(span_of(&(struct delivery_query){.before_event_key = 70, .before_subscription_no = 1}), 0, 69,
                SPAN_ALL_OF_EVENT);
    /* Whatever ends first. */
    assert_span(span_of(&(struct delivery_query){
                    .before_event_key = 70, .before_subscription_no = 3, .until = INT64_C(1) << 40}),
                0, 70, 3);
    assert_span(span_of(&(struct delivery_query){.event_key = 50}), 50, 50, SPAN_ALL_OF_EVENT);
    assert_span(span_of(&(struct delivery_query){
                    .event_key = 70, .before_event_key = 70, .before_subscription_no = 3}),
                70, 70, 3);
    struct span empty = span_of(&(struct delivery_query){.event_key = 50, .since = 5});
    assert_true(empty.first_event > empty.event);
}

static void test_a_span_has_what_comes_before_its_end(void **state) {
    (void)state;
    struct span s = {10, 20, 3};
    assert_false(span_has(&s, 9, 1));
    assert_true(span_has(&s, 10, 1));
    assert_true(span_has(&s, 19, UINT32_MAX));
    assert_true(span_has(&s, 20, 2));
    assert_false(span_has(&s, 20, 3));
    assert_false(span_has(&s, 21, 1));
    span_end_at(&s, 21);
    assert_span(s, 10, 20, 3);
    span_end_at(&s, 20);
    assert_span(s, 10, 19, SPAN_ALL_OF_EVENT);
    assert_true(span_has(&s, 19, UINT32_MAX));
}

static void test_where_a_page_stops_the_next_begins(void **state) {
    (void)state;
    struct span s = {10, 20, SPAN_ALL_OF_EVENT};
    struct delivery_stop stop = search_stop(15, 7);
    assert_true(stop.stopped);
    assert_span(span_before(&s, (int64_t)stop.event_key, stop.subscription_no), 10, 15, 7);
    /* An event without deliveries is done with. */
    stop = search_stop(15, 0);
    assert_span(span_before(&s, (int64_t)stop.event_key, stop.subscription_no), 10, 14, SPAN_ALL_OF_EVENT);
}

static void test_each_filter_turns_away(void **state) {
    (void)state;
    const struct search_columns d = {
        .subscription = 7, .state = DELIVERY_DLQ, .status = 500, .error = 0, .reason = REASON_GONE};
    assert_true(search_matches(&(struct delivery_query){.state = -1}, &d));
    assert_true(search_matches(
        &(struct delivery_query){
            .state = DELIVERY_DLQ, .subscription_no = 7, .status = 500, .reason = REASON_GONE},
        &d));
    assert_false(search_matches(&(struct delivery_query){.state = DELIVERY_PENDING}, &d));
    assert_false(search_matches(&(struct delivery_query){.state = -1, .subscription_no = 8}, &d));
    assert_false(search_matches(&(struct delivery_query){.state = -1, .status = 200}, &d));
    assert_false(search_matches(&(struct delivery_query){.state = -1, .error = ATTEMPT_TIMEOUT}, &d));
    assert_false(search_matches(&(struct delivery_query){.state = -1, .reason = REASON_WINDOW_EXPIRED}, &d));
    /* A reason is asked of what is in the dead-letter queue. */
    struct search_columns replaying = d;
    replaying.state = DELIVERY_REPLAYING;
    assert_false(search_matches(&(struct delivery_query){.state = -1, .reason = REASON_GONE}, &replaying));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_span_is_what_every_filter_leaves),
        cmocka_unit_test(test_a_span_has_what_comes_before_its_end),
        cmocka_unit_test(test_where_a_page_stops_the_next_begins),
        cmocka_unit_test(test_each_filter_turns_away),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
