//! What a call for queries and keys says of its arguments.

use super::{named, ones};
use normkit::Gradients;
use normkit::norm::Pair;
use normkit::prelude::*;
use normkit::tensor::{DType, Layout, View, ViewMut};

/// Arguments have names of both norms' in a call of both, and nothing that one writes is another operand's.
#[test]
fn arguments_of_queries_and_keys_are_named() {
    let (q, k) = (ones(&[2, 6, 8], DType::F32), ones(&[2, 3, 8], DType::F32));
    let (wrong, wide) = (ones(&[5], DType::F32), ones(&[8], DType::F64));
    let norm = QkNorm::rms;
    for (norm, expected) in [
        (norm().query_weight(&wrong), "query_weight"),
        (norm().key_weight(&wrong), "key_weight"),
        (norm().query_bias(&wrong), "query_bias"),
        (norm().key_bias(&wrong), "key_bias"),
        (norm().query_weight(&wide), "query_weight"),
        (norm().key_weight(&wide), "key_weight"),
    ] {
        assert_eq!(named(norm.forward(&q, &k)), expected);
        assert_eq!(named(norm.forward_train(&q, &k)), expected);
    }
    assert_eq!(
        named(norm().key_weight(&wrong).workspace_size(&[2, 6, 8], &[2, 3, 8], DType::F32)),
        "key_weight"
    );
    assert_eq!(named(norm().workspace_size(&[8], &[2, 3, 8], DType::F32)), "query");
    assert_eq!(named(norm().workspace_size(&[2, 6, 8], &[8], DType::F32)), "key");

    // Statistics and gradients, too.
    let stream = &Device::Cpu.stream();
    let (_, _, saved) = norm().forward_train(&q, &k).unwrap();
    let rows = |rows: usize| ones(&[rows, 4], DType::F32);
    let (mut y_q, mut y_k) = (q.clone(), k.clone());
    for (rows_q, rows_k, expected) in [(11, 6, "query_statistics"), (12, 5, "key_statistics")] {
        let (mut s_q, mut s_k) = (rows(rows_q), rows(rows_k));
        let result = norm().forward_into(
            Pair { query: &q.view().unwrap(), key: &k.view().unwrap() },
            Pair { query: &mut y_q.view_mut().unwrap(), key: &mut y_k.view_mut().unwrap() },
            Pair { query: Some(&mut s_q.view_mut().unwrap()), key: Some(&mut s_k.view_mut().unwrap()) },
            stream,
        );
        assert_eq!(named(result), expected);
    }
    let grad = |query, key| norm().backward(Pair { query, key }, &q, &k, &saved);
    assert_eq!(named(grad(&k, &k)), "query_grad_output");
    assert_eq!(named(grad(&q, &q)), "key_grad_output");
}

/// Views of one piece of memory, which only a caller's own code can overlap.
#[test]
fn outputs_of_queries_and_keys_are_apart() {
    let mut memory = vec![1f32; 256];
    let at = memory.as_mut_ptr().cast::<u8>();
    let layout = |shape: &[usize], offset| {
        Layout::strided(shape, Layout::contiguous(shape).strides(), offset).unwrap()
    };
    let read = |shape: &[usize], offset| {
        // SAFETY: the memory lives until the test ends, and each call reads and writes what it has checked.
        unsafe { View::from_host(at, 1024, DType::F32, layout(shape, offset)) }.unwrap()
    };
    let write = |shape: &[usize], offset| {
        // SAFETY: as above.
        unsafe { ViewMut::from_host(at, 1024, DType::F32, layout(shape, offset)) }.unwrap()
    };
    let (of_q, of_k) = ([1, 2, 8], [1, 1, 8]);
    let (q, k, weight) = (read(&of_q, 0), read(&of_k, 16), read(&[8], 24));
    let norm = QkNorm::rms().key_weight_view(weight);
    for (y_q, y_k, s_q, expected) in [
        (32, 40, 64, "query_output"),
        (16, 48, 64, "query_output"),
        (20, 48, 64, "query_output"),
        (32, 0, 64, "key_output"),
        // The weight of the keys, which the queries' output is not compared with alone.
        (24, 48, 64, "query_output"),
        (32, 48, 50, "query_statistics"),
        (32, 48, 16, "query_statistics"),
    ] {
        let (mut y_q, mut y_k, mut s_q) = (write(&of_q, y_q), write(&of_k, y_k), write(&[2, 4], s_q));
        let result = norm.forward_into(
            Pair { query: &q, key: &k },
            Pair { query: &mut y_q, key: &mut y_k },
            Pair { query: Some(&mut s_q), key: None },
            &Device::Cpu.stream(),
        );
        assert_eq!(named(result), expected);
    }
    let gradients = |input: usize, weight: Option<usize>| Gradients {
        input: Some(write(if weight.is_some() { &of_k } else { &of_q }, input)),
        weight: weight.map(|at| write(&[8], at)),
        ..Gradients::default()
    };
    let (s_q, s_k) = (read(&[2, 4], 100), read(&[1, 4], 108));
    for (d_q, d_k, dw_k, expected) in [
        (128, 136, 160, "query_grad_input"),
        (128, 144, 136, "query_grad_input"),
        (100, 144, 160, "query_grad_input"),
        (128, 0, 160, "key_grad_input"),
        (128, 144, 100, "key_grad_weight"),
    ] {
        let result = norm.backward_into(
            Pair { query: &q, key: &k },
            Pair { query: &q, key: &k },
            Pair { query: &s_q, key: &s_k },
            Pair { query: gradients(d_q, None), key: gradients(d_k, Some(dw_k)) },
            &mut Workspace::new(),
            &Device::Cpu.stream(),
        );
        assert_eq!(named(result), expected, "{d_q} {d_k} {dw_k}");
    }
    assert!(memory.iter().all(|&x| x == 1.0));
}
