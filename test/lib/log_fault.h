/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * log_fault.h - the log of a right run, changed as a mistake in pmemio would have it
 *
 * Each leaves out flushes, fences or stores, or makes them early or late, from event @from on. What is left out
 * becomes EV_NONE; the number of events stays.
 */
#ifndef TEST_LIB_LOG_FAULT_H
#define TEST_LIB_LOG_FAULT_H

#include "test/lib/medium.h"

void fault_no_record_flush(struct medium *d, size_t from);
void fault_no_record_fence(struct medium *d, size_t from);
void fault_early_statement(struct medium *d, size_t from);
void fault_no_fence_before_record(struct medium *d, size_t from);
void fault_no_payload_flush(struct medium *d, size_t from);
void fault_half_payload_flush(struct medium *d, size_t from);
void fault_late_payload_flush(struct medium *d, size_t from);
void fault_late_payload(struct medium *d, size_t from);
void fault_no_zeroing(struct medium *d, size_t from);
void fault_no_node_flush(struct medium *d, size_t from);
void fault_late_nodes(struct medium *d, size_t from);
void fault_early_in_place(struct medium *d, size_t from);
void fault_no_turn(struct medium *d, size_t from);
void fault_no_in_place_flush(struct medium *d, size_t from);
void fault_no_fence_before_head(struct medium *d, size_t from);
void fault_early_head(struct medium *d, size_t from);
void fault_no_super_flush(struct medium *d, size_t from);
void fault_no_super_store(struct medium *d, size_t from);
void fault_early_reuse(struct medium *d, size_t from);
void fault_no_data_sync(struct medium *d, size_t from);
void fault_no_record_sync(struct medium *d, size_t from);
void fault_no_whole_sync(struct medium *d, size_t from);
void fault_no_first_fence(struct medium *d, size_t from);
void fault_early_payload(struct medium *d, size_t from);
void fault_untied_data(struct medium *d, size_t from);
void fault_no_head(struct medium *d, size_t from);

#endif
