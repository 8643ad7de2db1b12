<?php
// Orders some mail as a shop does, by PHP's mail(). Usage: php shop.php [COUNT]
$count = (int) ($argv[1] ?? 3);
for ($number = 1; $number <= $count; $number++) {
    $accepted = mail(
        'customer@example.com',
        "Order $number",
        "Thank you for your order.\n",
        ['From' => 'shop@example.com', 'Content-Type' => 'text/plain; charset=utf-8'],
        '-fshop@example.com'
    );
    if (!$accepted) {
        fwrite(STDERR, "order $number: not accepted\n");
        exit(1);
    }
}
echo "$count accepted\n";
